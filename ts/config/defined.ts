/** Without the keys whose value is undefined: in TypeScript that is a way to leave a key out. */
export function defined<T extends object>(map: T): T {
  return Object.fromEntries(Object.entries(map).filter(([, value]) => value !== undefined)) as T
}
