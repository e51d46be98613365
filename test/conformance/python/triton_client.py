"""Drives a host with Triton's own client library, over gRPC and over HTTP:

    python3 triton_client.py --grpc HOST:PORT --http HOST:PORT [--control explicit]

Needs `tritonclient[grpc,http]` from PyPI. The host serves a copy of Triton's example repository. Prints the results as JSON;
exit code 1 when a check failed.
"""

import argparse
import queue
from importlib.metadata import version

import numpy as np
import tritonclient.grpc as grpcclient
import tritonclient.http as httpclient
from checks import Checks, Skip, expect
from tritonclient.utils import InferenceServerException

TIMEOUT = 20
FIRST = np.arange(16, dtype=np.int32).reshape(1, 16)
SECOND = np.full((1, 16), 3, dtype=np.int32)


class Road:
    """One of the two libraries and a client of it."""

    def __init__(self, name, library, url):
        self.name, self.library, self.is_http = name, library, name == "http"
        self.client = library.InferenceServerClient(url)

    def json(self, method, **arguments):
        """Metadata calls answer with plain data on both roads."""
        return getattr(self.client, method)(**arguments, **({} if self.is_http else {"as_json": True}))

    def input(self, name, values, datatype, binary=True):
        tensor = self.library.InferInput(name, list(values.shape), datatype)
        tensor.set_data_from_numpy(values, **({"binary_data": binary} if self.is_http else {}))
        return tensor

    def output(self, name, binary=True, **options):
        return self.library.InferRequestedOutput(name, **({"binary_data": binary} if self.is_http else {}), **options)

    def infer(self, model, values, datatype, names=("INPUT0", "INPUT1"), binary=True, outputs=None, **options):
        inputs = [self.input(name, value, datatype, binary) for name, value in zip(names, values)]
        return self.client.infer(model, inputs, outputs=outputs, **options)

    def simple(self, **options):
        return self.infer("simple", (FIRST, SECOND), "INT32", **options)


def expect_array(actual, wanted, what):
    if actual is None or not np.array_equal(actual, wanted):
        raise AssertionError(f"{what} is {actual}, expected {wanted}")


def expect_refusal(function, wanted=""):
    try:
        function()
    except InferenceServerException as error:
        if wanted not in str(error):
            raise AssertionError(f"the message is '{error}', expected '{wanted}' in it") from error
        return str(error)
    raise AssertionError("the call succeeded")


def check_health(road):
    client = road.client
    expect((client.is_server_live(), client.is_server_ready()), (True, True), "live and ready")
    expect((client.is_model_ready("simple"), client.is_model_ready("no_such_model")), (True, False), "models ready")


def check_metadata(road):
    server = road.json("get_server_metadata")
    model = road.json("get_model_metadata", model_name="simple")
    expect(model["name"], "simple", "name")
    expect([(t["name"], t["datatype"], [int(s) for s in t["shape"]]) for t in model["inputs"]],
           [("INPUT0", "INT32", [-1, 16]), ("INPUT1", "INT32", [-1, 16])], "inputs")  # fmt: skip
    config = road.json("get_model_config", model_name="simple")
    config = config.get("config", config)
    expect((config["name"], config["max_batch_size"]), ("simple", 8), "configuration")
    expect_refusal(lambda: road.json("get_model_metadata", model_name="no_such_model"), "no_such_model")
    return f"{server['name']} {server['version']}"


def check_infer(road):
    for binary in (True, False) if road.is_http else (True,):
        outputs = [road.output("OUTPUT0", binary), road.output("OUTPUT1", binary)]
        answer = road.simple(binary=binary, outputs=outputs, request_id="a-7")
        expect_array(answer.as_numpy("OUTPUT0"), FIRST + SECOND, "sum")
        expect_array(answer.as_numpy("OUTPUT1"), FIRST - SECOND, "difference")
        response = answer.get_response() if road.is_http else answer.get_response(as_json=True)
        expect(response["id"], "a-7", "id")
    answer = road.simple()
    expect_array(answer.as_numpy("OUTPUT1"), FIRST - SECOND, "difference without named outputs")
    answer = road.simple(outputs=[road.output("OUTPUT1")])
    expect(answer.as_numpy("OUTPUT0"), None, "output not asked for")
    eight = [np.repeat(values, 8, axis=0) for values in (FIRST, SECOND)]
    expect_array(road.infer("simple", eight, "INT32").as_numpy("OUTPUT0"), eight[0] + eight[1], "batch of eight")
    small = [values.astype(np.int8) for values in (FIRST, SECOND)]
    expect_array(road.infer("simple_int8", small, "INT8").as_numpy("OUTPUT0"), small[0] + small[1], "int8")


def check_strings(road):
    texts = [np.array([str(value).encode() for value in values[0]], dtype=np.object_).reshape(1, 16) for values in (FIRST, SECOND)]
    wanted = (FIRST + SECOND)[0]
    for binary in (True, False) if road.is_http else (True,):
        outputs = [road.output("OUTPUT0", binary)]
        answer = road.infer("simple_string", texts, "BYTES", binary=binary, outputs=outputs).as_numpy("OUTPUT0")
        expect([int(text) for text in answer[0]], wanted.tolist(), f"sums (binary: {binary})")


def check_classification(road):
    answer = road.simple(outputs=[road.output("OUTPUT0", class_count=2)]).as_numpy("OUTPUT0")
    best = [text.decode().split(":")[:2] for text in answer.flatten()]
    expect([(float(value), int(index)) for value, index in best], [(18.0, 15), (17.0, 14)], "two best")


def check_refusals(road):
    expect_refusal(lambda: road.infer("no_such_model", (FIRST, SECOND), "INT32"), "no_such_model")
    expect_refusal(lambda: road.infer("simple", (FIRST, SECOND), "INT32", names=("INPUT0", "NOBODY")), "NOBODY")
    expect_refusal(lambda: road.infer("simple", (FIRST.astype(np.float32), SECOND.astype(np.float32)), "FP32"), "INPUT0")
    nine = [np.repeat(values, 9, axis=0) for values in (FIRST, SECOND)]
    expect_refusal(lambda: road.infer("simple", nine, "INT32"))
    return expect_refusal(lambda: road.infer("simple", (FIRST[:, :15], SECOND[:, :15]), "INT32"))


def check_asynchronous(road):
    if road.is_http:
        inputs = [road.input("INPUT0", FIRST, "INT32"), road.input("INPUT1", SECOND, "INT32")]
        answers = [handle.get_result() for handle in [road.client.async_infer("simple", inputs) for _ in range(20)]]
    else:
        inbox = queue.Queue()
        inputs = [road.input("INPUT0", FIRST, "INT32"), road.input("INPUT1", SECOND, "INT32")]
        for _ in range(50):
            road.client.async_infer("simple", inputs, callback=lambda result, error: inbox.put((result, error)))
        pairs = [inbox.get(timeout=TIMEOUT) for _ in range(50)]
        expect([error for _, error in pairs if error is not None], [], "errors")
        answers = [result for result, _ in pairs]
    for answer in answers:
        expect_array(answer.as_numpy("OUTPUT0"), FIRST + SECOND, "sum")


def check_sequences(road):
    steps = [(11, True, False), (7, False, False), (5, False, True)]
    for sequence in (3001, "by-name"):
        found = []
        for value, start, end in steps:
            values = (np.array([[value]], dtype=np.int32),)
            options = {"sequence_id": sequence, "sequence_start": start, "sequence_end": end}
            answer = road.infer("simple_sequence", values, "INT32", names=("INPUT",), **options)
            found.append(int(answer.as_numpy("OUTPUT")[0][0]))
        expect(found, [12, 7, 5], f"answers of sequence {sequence!r}")


def check_stream(road):
    if road.is_http:
        raise Skip("HTTP has no streams")
    inbox = queue.Queue()
    values = [11, 7, 5, 3, 2, 0, 1]
    last = len(values) - 1
    road.client.start_stream(callback=lambda result, error: inbox.put((result, error)))
    try:
        for step, value in enumerate(values):
            for sequence, sign in ((4001, 1), (4002, -1)):
                tensor = road.input("INPUT", np.array([[sign * value]], dtype=np.int32), "INT32")
                road.client.async_stream_infer(
                    "simple_dyna_sequence", [tensor], request_id=str(sequence), sequence_id=sequence,
                    sequence_start=step == 0, sequence_end=step == last,
                )  # fmt: skip
        found = {"4001": [], "4002": []}
        for _ in range(2 * len(values)):
            result, error = inbox.get(timeout=TIMEOUT)
            expect(error, None, "error")
            found[result.get_response().id].append(int(result.as_numpy("OUTPUT")[0][0]))
        road.client.async_stream_infer("no_such_model", [road.input("INPUT0", FIRST, "INT32")])
        expect(inbox.get(timeout=TIMEOUT)[1] is not None, True, "an error in the stream")
        inputs = [road.input("INPUT0", FIRST, "INT32"), road.input("INPUT1", SECOND, "INT32")]
        road.client.async_stream_infer("simple", inputs)
        result, error = inbox.get(timeout=TIMEOUT)
        expect(error, None, "error after an error")
        expect_array(result.as_numpy("OUTPUT0"), FIRST + SECOND, "sum after an error")
    finally:
        road.client.stop_stream()
    for sequence, sign in ((4001, 1), (4002, -1)):
        wanted = [sign * value + (step == 0) + (sequence if step == last else 0) for step, value in enumerate(values)]
        expect(found[str(sequence)], wanted, f"answers of sequence {sequence}")


def check_model_control(road, control):
    index = road.json("get_model_repository_index")
    models = {model["name"]: model for model in (index if road.is_http else index["models"])}
    expect(models["simple"]["state"], "READY", "state of simple")
    if control != "explicit":
        return expect_refusal(lambda: road.client.unload_model("simple_int8"))
    road.client.unload_model("simple_int8")
    expect(road.client.is_model_ready("simple_int8"), False, "ready after unload")
    road.client.load_model("simple_int8")
    expect(road.client.is_model_ready("simple_int8"), True, "ready after load")
    return expect_refusal(lambda: road.client.load_model("no_such_model"))


def check_statistics(road):
    def count():
        stats = road.json("get_inference_statistics", model_name="simple")["model_stats"][0]
        return int(stats["inference_count"])

    before = count()
    for _ in range(5):
        road.simple()
    expect(count() - before, 5, "growth of inference_count")


def expect_late_refusal(road):
    """A deadline of a microsecond: gRPC counts in milliseconds, so that a fast answer may still be in time now and then."""
    for _ in range(100):
        try:
            road.simple(client_timeout=1e-6)
        except InferenceServerException as error:
            expect("deadline" in str(error).lower(), True, f"that '{error}' names the deadline")
            return
    raise AssertionError("none of 100 calls with a deadline of a microsecond was refused")


def check_cancellation(road):
    if road.is_http:
        raise Skip("Triton's HTTP client cannot cancel")
    inbox = queue.Queue()
    inputs = [road.input("INPUT0", FIRST, "INT32"), road.input("INPUT1", SECOND, "INT32")]
    calls = [
        road.client.async_infer("simple", inputs, callback=lambda result, error: inbox.put(error)) for _ in range(50)
    ]
    for call in calls:
        call.cancel()
    errors = [inbox.get(timeout=TIMEOUT) for _ in calls]
    strange = [str(error) for error in errors if error is not None and "cancel" not in str(error).lower()]
    expect(strange, [], "errors other than cancellation")
    road.client.start_stream(callback=lambda result, error: None)
    road.client.async_stream_infer("simple", inputs)
    road.client.stop_stream(cancel_requests=True)
    expect_late_refusal(road)
    expect_array(road.simple().as_numpy("OUTPUT0"), FIRST + SECOND, "sum afterwards")
    return f"{sum(error is not None for error in errors)} of {len(errors)} were cancelled before they were answered"


def check_log_settings(road):
    settings = road.json("get_log_settings")
    return ", ".join(sorted(settings.get("settings", settings)))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--grpc", required=True)
    parser.add_argument("--http", required=True)
    parser.add_argument("--control", choices=["none", "explicit"], default="none")
    options = parser.parse_args()
    checks = Checks(f"tritonclient {version('tritonclient')}")
    for road in (Road("grpc", grpcclient, options.grpc), Road("http", httpclient, options.http)):
        for name, check in (
            ("health", check_health),
            ("metadata and configuration", check_metadata),
            ("infer", check_infer),
            ("strings", check_strings),
            ("classification", check_classification),
            ("refusals", check_refusals),
            ("asynchronous", check_asynchronous),
            ("sequences", check_sequences),
            ("stream", check_stream),
            ("model control", lambda road: check_model_control(road, options.control)),
            ("statistics", check_statistics),
            ("cancellation", check_cancellation),
            ("log settings", check_log_settings),
        ):
            checks.run(f"{road.name}: {name}", lambda check=check, road=road: check(road))
        road.client.close()
    checks.finish()


if __name__ == "__main__":
    main()
