"""Drives a host over gRPC with grpcio and Google's protobuf only: `python3 grpcio_client.py HOST:PORT [--control explicit]`.

The host serves a copy of Triton's example repository (simple, simple_int8, simple_string, simple_sequence,
simple_dyna_sequence). Prints the results as JSON; exit code 1 when a check failed.
"""

import argparse
import queue
import struct
import threading

import grpc
from checks import Checks, Skip, expect
from inference_schema import load_messages

M = load_messages()
SERVICE = "inference.GRPCInferenceService"
TIMEOUT = 20


class Host:
    """One method a kind of call; requests are filled from keyword arguments."""

    def __init__(self, address):
        limits = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        self.channel = grpc.insecure_channel(address, options=limits)

    def _unary(self, service, method, request, response):
        return self.channel.unary_unary(
            f"/{service}/{method}", request_serializer=request.SerializeToString, response_deserializer=response.FromString
        )

    def method(self, name):
        request, response = M[f"{name}Request"], M[f"{name}Response"]
        return self._unary(SERVICE, name, request, response)

    def call(self, name, /, timeout=TIMEOUT, **fields):
        return self.method(name)(M[f"{name}Request"](**fields), timeout=timeout)

    def stream(self):
        return self.channel.stream_stream(
            f"/{SERVICE}/ModelStreamInfer",
            request_serializer=M["ModelInferRequest"].SerializeToString,
            response_deserializer=M["ModelStreamInferResponse"].FromString,
        )


def int_tensor(name, values, datatype="INT32", shape=None):
    return {"name": name, "datatype": datatype, "shape": shape or [1, len(values)]}


def pack_ints(values, letter="i"):
    return struct.pack(f"<{len(values)}{letter}", *values)


def pack_texts(texts):
    return b"".join(struct.pack("<I", len(text)) + text for text in texts)


def unpack_texts(data):
    texts, at = [], 0
    while at < len(data):
        (length,) = struct.unpack_from("<I", data, at)
        texts.append(data[at + 4 : at + 4 + length])
        at += 4 + length
    return texts


def outputs_of(response, letter):
    """Values by output name, from raw or typed contents."""
    values = {}
    for index, output in enumerate(response.outputs):
        if response.raw_output_contents:
            data = response.raw_output_contents[index]
            if letter == "s":
                values[output.name] = unpack_texts(data)
            else:
                values[output.name] = [value for (value,) in struct.iter_unpack(f"<{letter}", data)]
        else:
            filled = [list(getattr(output.contents, field.name)) for field, _ in output.contents.ListFields()]
            values[output.name] = filled[0] if filled else []
    return values


FIRST, SECOND = list(range(16)), [3] * 16
SUM, DIFFERENCE = [a + b for a, b in zip(FIRST, SECOND)], [a - b for a, b in zip(FIRST, SECOND)]


def simple_request(**changes):
    fields = {
        "model_name": "simple",
        "inputs": [int_tensor("INPUT0", FIRST), int_tensor("INPUT1", SECOND)],
        "raw_input_contents": [pack_ints(FIRST), pack_ints(SECOND)],
    }
    return {**fields, **changes}


def sequence_request(model, value, sequence, start=False, end=False):
    parameter = {"string_param": sequence} if isinstance(sequence, str) else {"int64_param": sequence}
    return M["ModelInferRequest"](
        model_name=model,
        id=f"{sequence}-{value}",
        parameters={
            "sequence_id": M["InferParameter"](**parameter),
            "sequence_start": M["InferParameter"](bool_param=start),
            "sequence_end": M["InferParameter"](bool_param=end),
        },
        inputs=[int_tensor("INPUT", [value])],
        raw_input_contents=[pack_ints([value])],
    )


def expect_code(code, function, wanted_text=""):
    codes = code if isinstance(code, tuple) else (code,)
    try:
        function()
    except grpc.RpcError as error:
        if error.code() not in codes:
            raise AssertionError(f"status is {error.code()} ({error.details()}), expected {codes}") from error
        if wanted_text not in (error.details() or ""):
            raise AssertionError(f"the message is '{error.details()}', expected '{wanted_text}' in it") from error
        return error.details()
    raise AssertionError(f"the call succeeded, expected {codes}")


INVALID, NOT_FOUND = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND


def check_health(host):
    expect(host.call("ServerLive").live, True, "live")
    expect(host.call("ServerReady").ready, True, "ready")
    request, response = M["HealthCheckRequest"], M["HealthCheckResponse"]
    check = host._unary("grpc.health.v1.Health", "Check", request, response)
    expect(check(request(), timeout=TIMEOUT).status, 1, "health")
    expect_code(NOT_FOUND, lambda: check(request(service="nobody"), timeout=TIMEOUT))
    watch = host.channel.unary_stream(
        "/grpc.health.v1.Health/Watch", request_serializer=request.SerializeToString, response_deserializer=response.FromString
    )(request(), timeout=TIMEOUT)
    expect(next(watch).status, 1, "watched health")
    watch.cancel()


def check_reflection(host):
    request, response = M["ServerReflectionRequest"], M["ServerReflectionResponse"]
    names = []
    for version in ("v1", "v1alpha"):
        call = host.channel.stream_stream(
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
            request_serializer=request.SerializeToString,
            response_deserializer=response.FromString,
        )
        answer = next(call(iter([request(list_services="")]), timeout=TIMEOUT))
        names.append({service.name for service in answer.list_services_response.service})
    for found in names:
        expect({SERVICE, "grpc.health.v1.Health"} - found, set(), "services missing from reflection")


def check_server_metadata(host):
    answer = host.call("ServerMetadata")
    expect(bool(answer.name and answer.version), True, "name and version")
    for absent in ("system_shared_memory", "cuda_shared_memory", "trace"):
        expect(absent in answer.extensions, False, f"extension {absent}")
    return f"{answer.name} {answer.version}: {', '.join(answer.extensions)}"


def check_model_metadata(host):
    expect(host.call("ModelReady", name="simple").ready, True, "simple ready")
    expect(host.call("ModelReady", name="no_such_model").ready, False, "unknown model ready")
    answer = host.call("ModelMetadata", name="simple")
    found = [(tensor.name, tensor.datatype, list(tensor.shape)) for tensor in [*answer.inputs, *answer.outputs]]
    expect(found, [(name, "INT32", [-1, 16]) for name in ("INPUT0", "INPUT1", "OUTPUT0", "OUTPUT1")], "tensors")
    expect(list(answer.versions), ["1"], "versions")
    strings = host.call("ModelMetadata", name="simple_string")
    expect({tensor.datatype for tensor in strings.inputs}, {"BYTES"}, "type of strings")
    expect_code(NOT_FOUND, lambda: host.call("ModelMetadata", name="no_such_model"))


def check_model_config(host):
    config = host.call("ModelConfig", name="simple").config
    expect((config.name, config.max_batch_size), ("simple", 8), "name and largest batch")
    expect([(i.name, i.data_type, list(i.dims)) for i in config.input], [("INPUT0", 8, [16]), ("INPUT1", 8, [16])], "inputs")


def check_infer_raw(host):
    answer = host.call("ModelInfer", **simple_request(id="a-7"))
    expect(outputs_of(answer, "i"), {"OUTPUT0": SUM, "OUTPUT1": DIFFERENCE}, "outputs")
    expect((answer.id, answer.model_name, answer.model_version), ("a-7", "simple", "1"), "id, model, version")
    expect([list(output.shape) for output in answer.outputs], [[1, 16], [1, 16]], "shapes")
    return ", ".join(sorted(answer.parameters))


def check_infer_typed(host):
    inputs = [
        {**int_tensor("INPUT0", FIRST), "contents": {"int_contents": FIRST}},
        {**int_tensor("INPUT1", SECOND), "contents": {"int_contents": SECOND}},
    ]
    answer = host.call("ModelInfer", model_name="simple", inputs=inputs)
    expect(outputs_of(answer, "i"), {"OUTPUT0": SUM, "OUTPUT1": DIFFERENCE}, "outputs")
    eight = [int_tensor(name, FIRST, "INT8") for name in ("INPUT0", "INPUT1")]
    for tensor in eight:
        tensor["contents"] = {"int_contents": FIRST}
    answer = host.call("ModelInfer", model_name="simple_int8", inputs=eight)
    expect(outputs_of(answer, "b")["OUTPUT0"], [2 * value for value in FIRST], "int8 sum")


def check_outputs_wanted(host):
    answer = host.call("ModelInfer", **simple_request(outputs=[{"name": "OUTPUT1"}]))
    expect(outputs_of(answer, "i"), {"OUTPUT1": DIFFERENCE}, "outputs")


def check_batches(host):
    rows = [FIRST] * 8
    flat = [value for row in rows for value in row]
    tensors = [int_tensor(name, flat, shape=[8, 16]) for name in ("INPUT0", "INPUT1")]
    answer = host.call("ModelInfer", **simple_request(inputs=tensors, raw_input_contents=[pack_ints(flat)] * 2))
    expect(outputs_of(answer, "i")["OUTPUT0"], [2 * value for value in flat], "batch of eight")
    flat = FIRST * 9
    tensors = [int_tensor(name, flat, shape=[9, 16]) for name in ("INPUT0", "INPUT1")]
    return expect_code(
        INVALID, lambda: host.call("ModelInfer", **simple_request(inputs=tensors, raw_input_contents=[pack_ints(flat)] * 2))
    )


def check_many_at_once(host):
    futures = [
        host.method("ModelInfer").future(M["ModelInferRequest"](**simple_request(id=str(number))), timeout=TIMEOUT)
        for number in range(200)
    ]
    for number, future in enumerate(futures):
        expect((future.result().id, outputs_of(future.result(), "i")["OUTPUT0"]), (str(number), SUM), "answer")


def check_strings(host):
    texts = [[str(value).encode() for value in values] for values in (FIRST, SECOND)]
    tensors = [int_tensor(name, FIRST, "BYTES") for name in ("INPUT0", "INPUT1")]
    raw = host.call(
        "ModelInfer", model_name="simple_string", inputs=tensors, raw_input_contents=[pack_texts(row) for row in texts]
    )
    typed_inputs = [{**tensor, "contents": {"bytes_contents": row}} for tensor, row in zip(tensors, texts)]
    typed = host.call("ModelInfer", model_name="simple_string", inputs=typed_inputs)
    for answer in (raw, typed):
        expect(outputs_of(answer, "s")["OUTPUT0"], [str(value).encode() for value in SUM], "sums as texts")


def check_classification(host):
    wanted = [{"name": "OUTPUT0", "parameters": {"classification": M["InferParameter"](int64_param=2)}}]
    answer = host.call("ModelInfer", **simple_request(outputs=wanted))
    expect(answer.outputs[0].datatype, "BYTES", "type")
    top = [text.decode().split(":")[:2] for text in outputs_of(answer, "s")["OUTPUT0"]]
    expect([(float(value), int(index)) for value, index in top], [(18.0, 15), (17.0, 14)], "two best")


def check_refusals(host):
    infer = lambda **changes: lambda: host.call("ModelInfer", **simple_request(**changes))  # noqa: E731
    expect_code(NOT_FOUND, infer(model_name="no_such_model"), "no_such_model")
    expect_code((NOT_FOUND, INVALID), infer(model_version="99"), "99")
    unknown = [int_tensor("INPUT0", FIRST), int_tensor("NOBODY", SECOND)]
    expect_code(INVALID, infer(inputs=unknown), "NOBODY")
    expect_code(INVALID, infer(inputs=[int_tensor("INPUT0", FIRST, "FP32"), int_tensor("INPUT1", SECOND)]), "INPUT0")
    expect_code(INVALID, infer(inputs=[int_tensor("INPUT0", FIRST, shape=[1, 15]), int_tensor("INPUT1", SECOND)]))
    expect_code(INVALID, infer(raw_input_contents=[pack_ints(FIRST)[:-1], pack_ints(SECOND)]))
    expect_code(INVALID, infer(raw_input_contents=[pack_ints(FIRST)]))
    expect_code(INVALID, infer(outputs=[{"name": "NOBODY"}]), "NOBODY")
    return expect_code(INVALID, infer(parameters={"triton_anything": M["InferParameter"](bool_param=True)}))


def check_stream(host):
    requests = [M["ModelInferRequest"](**simple_request(id=str(number))) for number in range(50)]
    requests.insert(20, M["ModelInferRequest"](**simple_request(id="bad", model_name="no_such_model")))
    answers = list(host.stream()(iter(requests), timeout=TIMEOUT))
    errors = [answer.error_message for answer in answers if answer.error_message]
    expect(len(errors), 1, "errors in the stream")
    ids = sorted(int(answer.infer_response.id) for answer in answers if not answer.error_message)
    expect(ids, list(range(50)), "ids of answers")
    return errors[0]


def check_sequences(host):
    infer = host.method("ModelInfer")
    for model, sequence in (("simple_sequence", 1001), ("simple_sequence", "by-name")):
        steps = [(11, True, False), (7, False, False), (5, False, True)]
        answers = [
            outputs_of(infer(sequence_request(model, value, sequence, start, end), timeout=TIMEOUT), "i")["OUTPUT"][0]
            for value, start, end in steps
        ]
        expect(answers, [12, 7, 5], f"answers of sequence {sequence!r}")
    expect_code(INVALID, lambda: infer(sequence_request("simple_sequence", 1, 4711), timeout=TIMEOUT))
    no_sequence = M["ModelInferRequest"](
        model_name="simple_sequence", inputs=[int_tensor("INPUT", [1])], raw_input_contents=[pack_ints([1])]
    )
    return expect_code(INVALID, lambda: infer(no_sequence, timeout=TIMEOUT))


def check_interleaved_sequences(host):
    values = [11, 7, 5, 3, 2, 0, 1]
    last = len(values) - 1
    requests = []
    for step, value in enumerate(values):
        for sequence, sign in ((2001, 1), (2002, -1)):
            requests.append(sequence_request("simple_dyna_sequence", sign * value, sequence, step == 0, step == last))
    outbox = queue.Queue()
    for request in requests:
        outbox.put(request)
    outbox.put(None)
    found = {2001: [], 2002: []}
    for answer in host.stream()(iter(outbox.get, None), timeout=TIMEOUT):
        expect(answer.error_message, "", "error")
        sequence = int(answer.infer_response.id.split("-")[0])
        found[sequence].append(outputs_of(answer.infer_response, "i")["OUTPUT"][0])
    for sequence, sign in ((2001, 1), (2002, -1)):
        wanted = [sign * value + (step == 0) + (sequence if step == last else 0) for step, value in enumerate(values)]
        expect(found[sequence], wanted, f"answers of sequence {sequence}")


def check_index(host):
    models = {model.name: model for model in host.call("RepositoryIndex").models}
    expect(models["simple"].state, "READY", "state of simple")
    ready = {model.name for model in host.call("RepositoryIndex", ready=True).models}
    expect("simple" in ready, True, "simple among the ready")
    return ", ".join(f"{name} {model.state} {model.reason}".strip() for name, model in sorted(models.items()))


def check_model_control(host, control):
    if control != "explicit":
        return expect_code(
            (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.FAILED_PRECONDITION),
            lambda: host.call("RepositoryModelUnload", model_name="simple_int8"),
        )
    host.call("RepositoryModelUnload", model_name="simple_int8")
    expect(host.call("ModelReady", name="simple_int8").ready, False, "ready after unload")
    inputs = [int_tensor(name, FIRST, "INT8") for name in ("INPUT0", "INPUT1")]
    request = {"model_name": "simple_int8", "inputs": inputs, "raw_input_contents": [bytes(FIRST)] * 2}
    expect_code((grpc.StatusCode.UNAVAILABLE, NOT_FOUND), lambda: host.call("ModelInfer", **request))
    host.call("RepositoryModelLoad", model_name="simple_int8")
    expect(host.call("ModelReady", name="simple_int8").ready, True, "ready after load")
    expect(outputs_of(host.call("ModelInfer", **request), "b")["OUTPUT0"], [2 * v for v in FIRST], "sum after load")
    # KServe writes the model's name into field 1.
    host.call("RepositoryModelUnload", repository_name="simple_int8")
    answer = host.call("RepositoryModelLoad", repository_name="simple_int8")
    expect((answer.model_name, answer.is_loaded), ("simple_int8", True), "KServe's answer")
    return expect_code((NOT_FOUND, INVALID), lambda: host.call("RepositoryModelLoad", model_name="no_such_model"))


def check_statistics(host):
    def counts():
        stats = host.call("ModelStatistics", name="simple").model_stats[0]
        return stats.inference_count, stats.inference_stats.success.count, stats.execution_count

    before = counts()
    for _ in range(5):
        host.call("ModelInfer", **simple_request())
    after = counts()
    expect(after[0] - before[0], 5, "growth of inference_count")
    expect(after[1] - before[1], 5, "growth of successes")
    stats = host.call("ModelStatistics", name="simple").model_stats[0]
    expect(stats.inference_stats.compute_infer.ns > 0 and stats.last_inference > 0, True, "times")
    return f"{after[0]} items in {after[2]} batches"


def check_cancellation(host):
    request = M["ModelInferRequest"](**simple_request())
    futures = [host.method("ModelInfer").future(request, timeout=TIMEOUT) for _ in range(100)]
    for future in futures:
        future.cancel()
    expect(all(future.cancelled() or future.done() for future in futures), True, "all calls over")
    started = threading.Event()

    def requests():
        yield request
        started.set()
        threading.Event().wait(TIMEOUT)  # the stream stays open until it is cancelled

    stream = host.stream()(requests(), timeout=TIMEOUT)
    expect(next(stream).error_message, "", "error")
    stream.cancel()
    expect_code(grpc.StatusCode.CANCELLED, lambda: next(stream))
    expect_code(grpc.StatusCode.DEADLINE_EXCEEDED, lambda: host.call("ModelInfer", timeout=1e-6, **simple_request()))
    expect(outputs_of(host.call("ModelInfer", **simple_request()), "i")["OUTPUT0"], SUM, "outputs afterwards")


def check_unimplemented(host):
    for method in ("SystemSharedMemoryStatus", "TraceSetting"):
        expect_code(grpc.StatusCode.UNIMPLEMENTED, lambda method=method: host.call(method))
    settings = host.call("LogSettings").settings
    if not settings:
        raise Skip("the host has no log settings")
    return ", ".join(sorted(settings))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    parser.add_argument("--control", choices=["none", "explicit"], default="none")
    options = parser.parse_args()
    host = Host(options.address)
    grpc.channel_ready_future(host.channel).result(timeout=TIMEOUT)
    checks = Checks(f"grpcio {grpc.__version__}")
    checks.run("health", lambda: check_health(host))
    checks.run("reflection", lambda: check_reflection(host))
    checks.run("server metadata", lambda: check_server_metadata(host))
    checks.run("model metadata", lambda: check_model_metadata(host))
    checks.run("model configuration", lambda: check_model_config(host))
    checks.run("infer raw", lambda: check_infer_raw(host))
    checks.run("infer typed", lambda: check_infer_typed(host))
    checks.run("outputs wanted", lambda: check_outputs_wanted(host))
    checks.run("batches", lambda: check_batches(host))
    checks.run("many at once", lambda: check_many_at_once(host))
    checks.run("strings", lambda: check_strings(host))
    checks.run("classification", lambda: check_classification(host))
    checks.run("refusals", lambda: check_refusals(host))
    checks.run("stream", lambda: check_stream(host))
    checks.run("sequences", lambda: check_sequences(host))
    checks.run("interleaved sequences", lambda: check_interleaved_sequences(host))
    checks.run("repository index", lambda: check_index(host))
    checks.run("model control", lambda: check_model_control(host, options.control))
    checks.run("statistics", lambda: check_statistics(host))
    checks.run("cancellation", lambda: check_cancellation(host))
    checks.run("unimplemented and log settings", lambda: check_unimplemented(host))
    checks.finish()


if __name__ == "__main__":
    main()
