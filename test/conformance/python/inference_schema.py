"""The messages of the inference protocol, from the published field tables, built with Google's own protobuf library.

Written apart from the project's .proto files on purpose: a wrong number there must not be repeated here. One line a field:
`name number type`; `*` is repeated, `{}` a map from string (or from the key named first), `|` a member of the message's oneof.
"""

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

SCHEMA = """
package inference
ServerLiveRequest
ServerLiveResponse: live 1 bool
ServerReadyRequest
ServerReadyResponse: ready 1 bool
ModelReadyRequest: name 1 string, version 2 string
ModelReadyResponse: ready 1 bool
ServerMetadataRequest
ServerMetadataResponse: name 1 string, version 2 string, extensions 3 *string
ModelMetadataRequest: name 1 string, version 2 string
TensorMetadata: name 1 string, datatype 2 string, shape 3 *int64
ModelMetadataResponse: name 1 string, versions 2 *string, platform 3 string, inputs 4 *TensorMetadata, outputs 5 *TensorMetadata
InferParameter: bool_param 1 |bool, int64_param 2 |int64, string_param 3 |string, double_param 4 |double, uint64_param 5 |uint64
InferTensorContents: bool_contents 1 *bool, int_contents 2 *int32, int64_contents 3 *int64, uint_contents 4 *uint32, uint64_contents 5 *uint64, fp32_contents 6 *float, fp64_contents 7 *double, bytes_contents 8 *bytes
InferInputTensor: name 1 string, datatype 2 string, shape 3 *int64, parameters 4 {}InferParameter, contents 5 InferTensorContents
InferRequestedOutputTensor: name 1 string, parameters 2 {}InferParameter
ModelInferRequest: model_name 1 string, model_version 2 string, id 3 string, parameters 4 {}InferParameter, inputs 5 *InferInputTensor, outputs 6 *InferRequestedOutputTensor, raw_input_contents 7 *bytes
InferOutputTensor: name 1 string, datatype 2 string, shape 3 *int64, parameters 4 {}InferParameter, contents 5 InferTensorContents
ModelInferResponse: model_name 1 string, model_version 2 string, id 3 string, parameters 4 {}InferParameter, outputs 5 *InferOutputTensor, raw_output_contents 6 *bytes
ModelStreamInferResponse: error_message 1 string, infer_response 2 ModelInferResponse
ModelConfigRequest: name 1 string, version 2 string
ModelInput: name 1 string, data_type 2 int32, format 3 int32, dims 4 *int64
ModelOutput: name 1 string, data_type 2 int32, dims 3 *int64, label_filename 4 string
ModelConfig: name 1 string, platform 2 string, max_batch_size 4 int32, input 5 *ModelInput, output 6 *ModelOutput, backend 17 string
ModelConfigResponse: config 1 ModelConfig
ModelStatisticsRequest: name 1 string, version 2 string
StatisticDuration: count 1 uint64, ns 2 uint64
InferStatistics: success 1 StatisticDuration, fail 2 StatisticDuration, queue 3 StatisticDuration, compute_input 4 StatisticDuration, compute_infer 5 StatisticDuration, compute_output 6 StatisticDuration
InferBatchStatistics: batch_size 1 uint64, compute_input 2 StatisticDuration, compute_infer 3 StatisticDuration, compute_output 4 StatisticDuration
ModelStatistics: name 1 string, version 2 string, last_inference 3 uint64, inference_count 4 uint64, execution_count 5 uint64, inference_stats 6 InferStatistics, batch_stats 7 *InferBatchStatistics
ModelStatisticsResponse: model_stats 1 *ModelStatistics
ModelRepositoryParameter: bool_param 1 |bool, int64_param 2 |int64, string_param 3 |string, bytes_param 4 |bytes
RepositoryIndexRequest: repository_name 1 string, ready 2 bool
ModelIndex: name 1 string, version 2 string, state 3 string, reason 4 string
RepositoryIndexResponse: models 1 *ModelIndex
RepositoryModelLoadRequest: repository_name 1 string, model_name 2 string, parameters 3 {}ModelRepositoryParameter
RepositoryModelLoadResponse: model_name 1 string, is_loaded 2 bool
RepositoryModelUnloadRequest: repository_name 1 string, model_name 2 string, parameters 3 {}ModelRepositoryParameter
RepositoryModelUnloadResponse: model_name 1 string, is_unloaded 2 bool
SystemSharedMemoryStatusRequest: name 1 string
SystemSharedMemoryStatusResponse
TraceSettingRequest: model_name 2 string
TraceSettingResponse
LogSettingValue: bool_param 1 |bool, uint32_param 2 |uint32, string_param 3 |string
LogSettingsRequest: settings 1 {}LogSettingValue
LogSettingsResponse: settings 1 {}LogSettingValue
package grpc.health.v1
HealthCheckRequest: service 1 string
HealthCheckResponse: status 1 int32
package grpc.reflection.v1alpha
ServerReflectionRequest: host 1 string, list_services 7 |string
ServiceResponse: name 1 string
ListServiceResponse: service 1 *ServiceResponse
ServerReflectionResponse: valid_host 1 string, list_services_response 6 |ListServiceResponse
"""

_TYPES = {
    "double": 1, "float": 2, "int64": 3, "uint64": 4, "int32": 5, "bool": 8, "string": 9, "bytes": 12, "uint32": 13,
}  # fmt: skip
_MESSAGE, _OPTIONAL, _REPEATED = 11, 1, 3


def _add_field(message, package, name, number, kind):
    field = message.field.add(name=name, number=number, label=_OPTIONAL)
    if kind.startswith("{}"):
        entry = message.nested_type.add(name="".join(part.title() for part in name.split("_")) + "Entry")
        entry.options.map_entry = True
        _add_field(entry, package, "key", 1, "string")
        _add_field(entry, package, "value", 2, kind[2:])
        field.label, field.type = _REPEATED, _MESSAGE
        field.type_name = f".{package}.{message.name}.{entry.name}"
        return
    if kind.startswith("*"):
        field.label, kind = _REPEATED, kind[1:]
    if kind.startswith("|"):
        if not message.oneof_decl:
            message.oneof_decl.add(name="choice")
        field.oneof_index, kind = 0, kind[1:]
    if kind in _TYPES:
        field.type = _TYPES[kind]
    else:
        field.type, field.type_name = _MESSAGE, f".{package}.{kind}"


def load_messages():
    """Message classes by name."""
    pool, files, package = descriptor_pool.DescriptorPool(), {}, ""
    for line in SCHEMA.strip().splitlines():
        if line.startswith("package "):
            package = line.split()[1]
            files[package] = descriptor_pb2.FileDescriptorProto(name=f"{package}.proto", package=package, syntax="proto3")
            continue
        name, _, fields = line.partition(":")
        message = files[package].message_type.add(name=name)
        for field in filter(None, (part.strip() for part in fields.split(","))):
            field_name, number, kind = field.split()
            _add_field(message, package, field_name, int(number), kind)
    classes = {}
    for file in files.values():
        pool.Add(file)
        for message in file.message_type:
            descriptor = pool.FindMessageTypeByName(f"{file.package}.{message.name}")
            classes[message.name] = _class_of(descriptor)
    return classes


def _class_of(descriptor):
    if hasattr(message_factory, "GetMessageClass"):
        return message_factory.GetMessageClass(descriptor)
    return message_factory.MessageFactory().GetPrototype(descriptor)
