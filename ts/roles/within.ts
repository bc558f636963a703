/** Waits until `work` is settled, for so many seconds at most; how it ended is for others to tell. */
export async function within(seconds: number, work: Promise<unknown>): Promise<void> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<void>((resolve) => { timer = setTimeout(resolve, seconds * 1000) })
  await Promise.race([work.then(() => {}, () => {}), late])
  clearTimeout(timer)
}
