/** One request: a picture of a digit in, the best class with its label out, and what it cost. */
import { connect } from 'intarsia/client';

export async function classifyDigit(endpoint: string, pixels: Float32Array): Promise<string> {
  const client = connect({ endpoints: endpoint });
  try {
    const answer = await client.infer(
      'digits',
      { image: { data: pixels, shape: [1, 1, 28, 28] } },
      { outputs: [{ name: 'probabilities', classes: 1 }], timeoutMs: 5000 },
    );
    const [best] = answer.output('probabilities').asClassifications();
    const where = answer.receipt === undefined ? 'somewhere' : answer.receipt.device;
    return best === undefined ? 'no class' : `${best.label} with ${best.value}, on ${where}`;
  } finally {
    client.close();
  }
}
