/** Generated messages as JSON in Triton's manner: field names as in the .proto files, 64-bit numbers as numbers. */
import { ScalarType, type IMessageType, type JsonValue } from '@protobuf-ts/runtime';

const longTypes: ReadonlySet<ScalarType> = new Set([
  ScalarType.INT64,
  ScalarType.UINT64,
  ScalarType.SINT64,
  ScalarType.FIXED64,
  ScalarType.SFIXED64,
]);

type JsonObject = Record<string, JsonValue>;

export function messageJson<Message extends object>(type: IMessageType<Message>, message: Message): JsonObject {
  const json = type.toJson(message, { useProtoFieldName: true, emitDefaultValues: true }) as JsonObject;
  numbersInPlace(type, json);
  return json;
}

/** The library writes 64-bit numbers as texts, as protobuf's JSON wants; clients of this protocol expect numbers. */
function numbersInPlace(type: IMessageType<object>, json: JsonObject): void {
  for (const field of type.fields) {
    const value = json[field.name];
    if (value === undefined || value === null) continue;
    if (field.kind === 'scalar' && longTypes.has(field.T)) {
      json[field.name] = Array.isArray(value) ? value.map(Number) : Number(value);
    } else if (field.kind === 'message') {
      for (const inner of Array.isArray(value) ? value : [value]) {
        numbersInPlace(field.T() as IMessageType<object>, inner as JsonObject);
      }
    } else if (field.kind === 'map' && field.V.kind === 'message') {
      const inner = field.V.T() as IMessageType<object>;
      for (const entry of Object.values(value as JsonObject)) numbersInPlace(inner, entry as JsonObject);
    }
  }
}
