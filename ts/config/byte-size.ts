// Sizes in bytes as people write them: 512MiB, 2GB, 1.5TiB.

const units: Record<string, number> = {
  KB: 1e3, MB: 1e6, GB: 1e9, TB: 1e12, KiB: 2 ** 10, MiB: 2 ** 20, GiB: 2 ** 30, TiB: 2 ** 40,
}
const parts = /^(\d+(?:\.\d+)?) ?([KMGT]i?B)$/

/** A number above 0 and a unit. */
export const byteSizePattern = /^(?=[\d.]*[1-9])\d+(\.\d+)? ?[KMGT]i?B$/

/** The bytes of a text that matches the pattern; a part of a byte is left out. */
export function bytesOf(text: string): number {
  const [, number, unit] = parts.exec(text)!
  return Math.floor(Number(number) * units[unit!]!)
}

/** What a text like `8gib`, `8Gib` or `8 G` means; undefined when it is no size at all. */
export function nearestByteSize(text: string): string | undefined {
  const [, number, written] = /^([\d.]+)\s*([a-z]{1,3})$/i.exec(text) ?? []
  const known = Object.keys(units)
  const unit = known.find((name) => name.toLowerCase() === written?.toLowerCase())
    ?? known.find((name) => name === `${written?.toUpperCase()}iB`)
  const size = `${number}${unit}`
  return unit !== undefined && byteSizePattern.test(size) ? size : undefined
}

/** `5.2 MiB`, for people. */
export function byteText(bytes: number): string {
  const power = bytes < 1024 ? 0 : Math.min(4, Math.floor(Math.log2(bytes) / 10))
  return power === 0 ? `${bytes} B` : `${(bytes / 1024 ** power).toFixed(1)} ${' KMGT'[power]}iB`
}
