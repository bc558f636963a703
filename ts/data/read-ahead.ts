// Runs a generator ahead of its consumer by a bounded number of items.

/**
 * Yields the items of `source`, which runs on while up to `most` items wait. A full buffer pauses it. Ending the
 * returned generator ends the source and waits until it has cleaned up.
 */
export async function* readAhead<T>(source: AsyncIterable<T>, most: number): AsyncGenerator<T, void, undefined> {
  const ready: T[] = []
  let ended = false
  let stopped = false
  let failure: { error: unknown } | undefined
  // The source waits only while the buffer is full, the consumer only while it is empty: never both.
  let wake = () => {}
  const change = () => new Promise<void>((resolve) => { wake = resolve })

  const pump = async () => {
    try {
      for await (const item of source) {
        ready.push(item)
        wake()
        while (ready.length >= most && !stopped) await change()
        if (stopped) break
      }
    } catch (error) {
      failure = { error }
    }
    ended = true
    wake()
  }

  const pumping = pump()
  try {
    for (;;) {
      const item = ready.shift()
      if (item !== undefined) {
        wake()
        yield item
      } else if (ended) {
        if (failure) throw failure.error
        return
      } else {
        await change()
      }
    }
  } finally {
    stopped = true
    wake()
    await pumping
  }
}
