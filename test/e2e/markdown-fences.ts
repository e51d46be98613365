/** The code of a document, as a reader would copy it. */

export interface Fence {
  readonly language: string;
  readonly text: string;
}

/** The fenced blocks below a heading, down to the next heading of its level. */
export function readFences(markdown: string, heading: string): readonly Fence[] {
  const [, section] = markdown.split(`\n## ${heading}\n`);
  if (section === undefined) throw new Error(`no heading "## ${heading}"`);
  const [own = ''] = section.split(/\n## /);
  return [...own.matchAll(/^```(\w+)\n([\s\S]*?)^```$/gm)].map(([, language = '', text = '']) => ({ language, text }));
}
