/**
 * POST …/infer: the hot path of REST. The body is read and decoded here, the gateway does the rest, and the answer is
 * written straight to the socket: the framework's own serialisation is left out.
 */
import type { ServerResponse } from 'node:http';
import { deflate, gzip } from 'node:zlib';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { asIntarsiaError, intarsiaError, type IntarsiaError } from '#core/errors.js';
import type { InferRequestMessage, InferResponseMessage } from '#core/inference-message.js';
import type { Shape } from '#core/tensor.js';
import type { Access, Caller, InferGateway, InferReply } from '#ports/inference-gateway.js';
import { sendError } from './http-error.js';
import { binaryWishes, encodeAnswer, joinAnswer, type BinaryWishes, type EncodedAnswer } from './infer-answer.js';
import { rawBody, readInferBody, type BodyContext } from './infer-body.js';

/** What a body is that is nothing but the bytes of a model's only input. src/server knows. */
export interface RawInputService {
  /** @throws INVALID_ARGUMENT when the model or the number of bytes does not allow that. */
  rawInput(
    model: { readonly name: string; readonly version: string },
    body: Uint8Array,
    caller: Caller,
  ): { readonly name: string; readonly datatype: string; readonly shape: Shape; readonly data: Uint8Array };
}

export interface InferRouteOptions {
  readonly gateway: InferGateway;
  readonly access: Access;
  readonly services: RawInputService;
  /** Answers larger than this are refused. */
  readonly messageBytesMax: number;
  /** Figures for the ORCA header, by name; absent: the header is not sent. */
  readonly loadReport?: () => Readonly<Record<string, number>>;
}

const noReserved: ReadonlySet<string> = new Set();
/** Smaller answers are not worth compressing. */
const compressedBytesMin = 1024;
/** Answers with tensors up to this size are written as text. */
const textBytesMax = 4096;
/** Answers up to this size are joined into one write. */
const joinedBytesMax = 64 * 1024;
const empty = Buffer.alloc(0);

export interface ModelParams {
  readonly model: string;
  readonly version?: string;
}

export function inferHandler(options: InferRouteOptions) {
  return (request: FastifyRequest, reply: FastifyReply): void => {
    reply.hijack();
    const sink = new RestReply(request, reply.raw, options);
    let message: InferRequestMessage;
    let caller: Caller;
    try {
      const { headers } = request;
      caller = options.access.authorize('inference', 'http', (name) => headerText(headers[name]));
      message = readMessage(request, caller, options);
      sink.wishes = binaryWishes(message);
    } catch (error) {
      sink.fail(asIntarsiaError(error));
      return;
    }
    const { headers } = request;
    const call = {
      caller,
      deadlineMs: Infinity,
      messageBytes: bodyOf(request).byteLength,
      sloMs: sloOf(headerText(headers['x-slo-ttft-ms'])),
      traceparent: headerText(headers['traceparent']),
      reservedParameters: noReserved,
    };
    const ticket = options.gateway.infer(message, call, sink);
    if (!sink.answered) reply.raw.on('close', () => ticket.cancel());
  };
}

function readMessage(request: FastifyRequest, caller: Caller, options: InferRouteOptions): InferRequestMessage {
  const { model, version = '' } = request.params as ModelParams;
  const body = bodyOf(request);
  const context: BodyContext = {
    modelName: model,
    modelVersion: version,
    jsonLength: headerText(request.headers['inference-header-content-length']),
  };
  if (context.jsonLength !== '0') return readInferBody(body, context);
  const { data, ...input } = options.services.rawInput({ name: model, version }, body, caller);
  const message = rawBody(data, context, input);
  return { ...message, parameters: new Map([['binary_data_output', { kind: 'bool', value: true }]]) };
}

function bodyOf(request: FastifyRequest): Buffer {
  return (request.body as Buffer | undefined) ?? empty;
}

export function headerText(value: string | string[] | undefined): string | undefined {
  return Array.isArray(value) ? value[0] : value;
}

function sloOf(header: string | undefined): number {
  if (header === undefined) return 0;
  const value = Number(header);
  return value > 0 && value < Infinity ? value : 0;
}

class RestReply implements InferReply {
  answered = false;
  wishes: BinaryWishes = { all: false, single: undefined };
  readonly #request: FastifyRequest;
  readonly #response: ServerResponse;
  readonly #options: InferRouteOptions;

  constructor(request: FastifyRequest, response: ServerResponse, options: InferRouteOptions) {
    this.#request = request;
    this.#response = response;
    this.#options = options;
  }

  succeed(answer: InferResponseMessage): void {
    let encoded: EncodedAnswer;
    try {
      encoded = encodeAnswer(answer, this.wishes);
      if (encoded.byteLength > this.#options.messageBytesMax)
        throw tooLarge(encoded.byteLength, this.#options.messageBytesMax);
    } catch (error) {
      this.fail(asIntarsiaError(error));
      return;
    }
    this.answered = true;
    const headers: Record<string, string | number> =
      encoded.tensors.length === 0
        ? { 'content-type': 'application/json' }
        : {
            'content-type': 'application/octet-stream',
            'inference-header-content-length': encoded.jsonBytes,
          };
    this.#addLoadReport(headers);
    const accepted = this.#request.headers['accept-encoding'];
    if (accepted !== undefined && encoded.byteLength >= compressedBytesMin) {
      const encoding = /\bgzip\b/.test(accepted) ? 'gzip' : /\bdeflate\b/.test(accepted) ? 'deflate' : undefined;
      if (encoding !== undefined) {
        this.#writeCompressed(encoded, headers, encoding);
        return;
      }
    }
    this.#write(encoded, headers);
  }

  fail(error: IntarsiaError): void {
    this.answered = true;
    sendError(this.#response, error);
  }

  #write(answer: EncodedAnswer, headers: Record<string, string | number>): void {
    const response = this.#response;
    if (response.destroyed) return;
    const { json, tensors, byteLength } = answer;
    headers['content-length'] = byteLength;
    response.writeHead(200, headers);
    if (tensors.length === 0) response.end(json);
    // As a text it leaves together with the headers, in one write; as a buffer it would take two.
    else if (byteLength <= textBytesMax) response.end(joinAnswer(answer).toString('latin1'), 'latin1');
    else if (byteLength <= joinedBytesMax) response.end(joinAnswer(answer));
    else {
      response.cork();
      response.write(json);
      for (const tensor of tensors) response.write(tensor);
      response.end();
      response.uncork();
    }
  }

  /** The fastest level: tensors rarely shrink much, and the processor has models to run. */
  #writeCompressed(
    answer: EncodedAnswer,
    headers: Record<string, string | number>,
    encoding: 'gzip' | 'deflate',
  ): void {
    const compress = encoding === 'gzip' ? gzip : deflate;
    compress(joinAnswer(answer), { level: 1 }, (error, packed) => {
      if (error !== null) {
        sendError(this.#response, intarsiaError('INTERNAL', `the answer could not be compressed: ${error.message}`));
        return;
      }
      if (this.#response.destroyed) return;
      this.#response.writeHead(200, { ...headers, 'content-encoding': encoding, 'content-length': packed.byteLength });
      this.#response.end(packed);
    });
  }

  #addLoadReport(headers: Record<string, string | number>): void {
    const format = this.#request.headers['endpoint-load-metrics-format'];
    const report = this.#options.loadReport;
    if (format === undefined || report === undefined) return;
    const figures = report();
    headers['endpoint-load-metrics'] =
      format === 'json'
        ? `JSON ${JSON.stringify({ named_metrics: figures })}`
        : `TEXT ${Object.entries(figures)
            .map(([name, value]) => `named_metrics.${name}=${value}`)
            .join(', ')}`;
  }
}

function tooLarge(bytes: number, limit: number): IntarsiaError {
  return intarsiaError('REQUEST_TOO_LARGE', `the answer has ${bytes} bytes; messages may have ${limit}`, {
    limitBytes: limit,
    answerBytes: bytes,
  });
}
