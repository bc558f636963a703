// Tables as text.

/** Columns under each other: names to the left, numbers to the right. */
export function aligned(lines: string[][]): string[] {
  const widths = lines[0]!.map((_, column) => Math.max(...lines.map((cells) => cells[column]!.length)))
  return lines.map((cells) => cells.map((cell, column) =>
    (column === 0 ? cell.padEnd(widths[column]!) : cell.padStart(widths[column]!))).join('  ').trimEnd())
}
