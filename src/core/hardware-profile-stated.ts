/**
 * What the founding documents said about hardware, cell by cell, beside what is right: a reviewer who knows those tables
 * finds every row of them here, and sees why the figure used is another one.
 */
import type { ProfileFigureName, StatedFigure } from './hardware-profile.js';

interface StatedRow extends StatedFigure {
  /** Key of the profile it belongs to. */
  readonly profile: string;
}

const cell = (
  row: string,
  profile: string,
  what: string,
  statedValue: string,
  figure: ProfileFigureName | undefined,
  correction: string,
): StatedRow => ({ row, profile, what, statedValue, ...(figure === undefined ? {} : { figure }), correction });

const a100 = (what: string, stated: string, figure: ProfileFigureName | undefined, correction: string): StatedRow =>
  cell('NVIDIA A100', 'nvidia-a100-sxm-80', what, stated, figure, correction);
const gaudi2 = (what: string, stated: string, figure: ProfileFigureName | undefined, correction: string): StatedRow =>
  cell('Intel NPU (Gaudi 2)', 'intel-gaudi-2', what, stated, figure, correction);
const mi210 = (what: string, stated: string, figure: ProfileFigureName | undefined, correction: string): StatedRow =>
  cell('AMD MI210', 'amd-mi210', what, stated, figure, correction);
const neoverse = (what: string, stated: string, figure: ProfileFigureName | undefined, correction: string): StatedRow =>
  cell('Arm Neoverse V2', 'arm-neoverse-v2-grace', what, stated, figure, correction);
const h100 = (what: string, stated: string, figure: ProfileFigureName | undefined, correction: string): StatedRow =>
  cell('NVIDIA H100', 'nvidia-h100-sxm', what, stated, figure, correction);
const cloudCpu = (what: string, stated: string, figure: ProfileFigureName | undefined, correction: string): StatedRow =>
  cell('Cloud CPU', 'class-cloud-cpu', what, stated, figure, correction);
const edgeNpu = (what: string, stated: string, figure: ProfileFigureName | undefined, correction: string): StatedRow =>
  cell('Edge NPU', 'class-edge-npu', what, stated, figure, correction);

const asClass = 'fine as a class';

export const statedRows: readonly StatedRow[] = [
  a100('INT8', '624 TOPS', 'int8Tops', 'right, dense'),
  a100('power', '300–400 W; elsewhere 250–400 W', 'tdpWatts', 'right by SKU; SXM 400 W'),
  a100('ResNet-50', '< 1 ms', undefined, 'measured: 0.40 ms'),
  a100('bandwidth', '(empty); elsewhere 2 TB/s', 'bandwidthGBs', '1.555, 1.935 or 2.039 TB/s by SKU'),
  a100('FP16', '~312 TFLOPS', 'fp16Tflops', 'right, dense'),
  a100('memory', '40–80 GB', 'memoryGiB', 'right by SKU'),
  a100('price', '$8–15/h; $10–15k', 'usdPerHour', 'an 8-GPU node: 21.96 $/h today, 2.74 $/h a GPU'),
  a100('LLM', 'batch 50–200 ms', undefined, 'depends on the model and the batch; measure'),
  gaudi2('kind', 'NPU', undefined, 'an accelerator card; a true Intel NPU is NPU 4 with 48 TOPS (intel-npu-4)'),
  gaudi2('INT8', '400 TOPS', 'int8Tops', 'BF16 432 TFLOPS, FP8 865'),
  gaudi2('bandwidth', '2.45 TB/s', 'bandwidthGBs', 'right'),
  gaudi2('power', '600 W', 'tdpWatts', 'right'),
  gaudi2('ResNet-50', '1.2 ms', undefined, 'no closed MLPerf result to compare with'),
  mi210('INT8', '383 TOPS', 'int8Tops', 'that is the MI250X; MI210 has 181'),
  mi210('bandwidth', '3.2 TB/s', 'bandwidthGBs', 'that is the MI250X; MI210 has 1.6 TB/s'),
  mi210('power', '560 W', 'tdpWatts', 'that is the MI250X at its peak; MI210 takes 300 W'),
  mi210('ResNet-50', '1.1 ms', undefined, 'no closed MLPerf result to compare with'),
  neoverse('kind', 'a chip', undefined, 'a core design; the figures used are those of Grace, 72 cores'),
  neoverse('INT8', '45 TOPS', 'int8Tops', '28 to 45'),
  neoverse('bandwidth', '307 GB/s', 'bandwidthGBs', 'that is Graviton3, Neoverse V1; Grace has 500 GB/s'),
  neoverse('power', '60–120 W', 'tdpWatts', 'about 250 W with memory, for 72 cores'),
  neoverse('ResNet-50', '15 ms', undefined, 'plausible for few cores'),
  h100('bandwidth', '3.35 TB/s HBM3', 'bandwidthGBs', 'right for SXM'),
  h100('INT8', '3,958 TOPS', 'int8Tops', 'with 2:4 sparsity; dense 1,979'),
  h100('FP16', '~2000 TFLOPS', 'fp16Tflops', 'with 2:4 sparsity; dense 989'),
  h100('memory', '80 GB', 'memoryGiB', 'right'),
  h100('power', '700 W+', 'tdpWatts', '700 W'),
  h100('price', '$30–65/h; $30k+', 'usdPerHour', '55.04 $/h is 8 GPUs: 6.88 $/h a GPU'),
  h100('LLM', '< 50 ms', undefined, 'depends on the model and the batch; measure'),
  cell('Groq LPU', 'groq-lpu-v1', 'bandwidth', '(empty)', 'bandwidthGBs', '80 TB/s on the chip'),
  cell('Groq LPU', 'groq-lpu-v1', 'INT8', '(empty)', 'int8Tops', '750 TOPS, 230 MB of SRAM'),
  cell('Cerebras WSE', 'cerebras-wse-2', 'cores', '850k cores', undefined, 'right for WSE-2'),
  cell('Cerebras WSE', 'cerebras-wse-2', 'bandwidth', '20 PB/s', 'bandwidthGBs', 'right for WSE-2'),
  cell(
    'Cerebras WSE',
    'cerebras-wse-3',
    'INT8',
    '~125,000 TOPS',
    'fp16Tflops',
    '125 PFLOPS are FP16 with sparsity, on WSE-3; not INT8',
  ),
  cloudCpu('arithmetic', '< 5 TFLOPS', 'fp16Tflops', `${asClass}; AMX and many-core sockets exceed it`),
  cloudCpu('bandwidth', '~200 GB/s', 'bandwidthGBs', `${asClass}; large sockets have 350 to 840 GB/s`),
  cloudCpu('power', '150–300 W', 'tdpWatts', `${asClass}; large sockets take 350 to 500 W`),
  cloudCpu('price', '$0.50–4/h', 'usdPerHour', asClass),
  cloudCpu('cold start', 'seconds', undefined, asClass),
  edgeNpu('INT8', '1–50 TOPS', 'int8Tops', asClass),
  edgeNpu('memory', 'SRAM/~100 GB/s', 'bandwidthGBs', asClass),
  edgeNpu('power', '1–30 W', 'tdpWatts', asClass),
  edgeNpu('price', '$50–500 once', undefined, asClass),
  edgeNpu('latency', '10–100 ms', undefined, asClass),
  edgeNpu('cold start', 'µs', undefined, 'milliseconds in practice, the model is uploaded: measure'),
];
