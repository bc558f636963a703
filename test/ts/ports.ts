/**
 * A port of the loopback address that nothing takes by chance: below those that systems hand out (from 32768 on), so no other
 * test's server gets it from port 0, and no connection starts there; not that of another test process, while their numbers
 * are closer than 20,000.
 */
export function quietPort(): number {
  return 10_000 + (process.pid % 20_000)
}
