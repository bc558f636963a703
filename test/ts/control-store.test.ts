// The store of the coordinator's state: what any store must do, so that another can take its place.
import t from 'tap'
import { MemoryStore } from '#persia/control/memory-store.js'
import type { Change } from '#persia/control/store.js'

const later = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms))

t.test('of several that create a key one succeeds', async (t) => {
  const store = new MemoryStore()
  const created = await Promise.all(['a', 'b', 'c'].map((value) => store.create('members/0', value)))
  t.same(created.filter(Boolean).length, 1)
  t.equal(await store.get('members/0'), 'a')
  await store.delete('members/0')
  t.equal(await store.create('members/0', 'd'), true, 'a key that went can be had again')
  await store.close()
})

t.test('keys go with their lease, which lasts as long as it is kept alive', async (t) => {
  const store = new MemoryStore()
  t.teardown(() => store.close())
  const changes: Change[] = []
  store.watch('members/', (change) => changes.push(change))
  const [kept, left] = [await store.grant(0.3), await store.grant(0.3)]
  await store.put('members/kept', '1', kept)
  await store.put('members/left', '2', left)
  await store.put('other', '3')
  const alive = setInterval(() => { void store.keepAlive(kept) }, 50)
  await later(900)
  clearInterval(alive)
  t.same((await store.list('members/')).map(({ key }) => key), ['members/kept'])
  t.same(changes.map(({ kind, key }) => `${kind} ${key}`), ['put members/kept', 'put members/left', 'delete members/left'])
  t.equal(await store.keepAlive(left), false, 'a lease that ended stays ended')
  await t.rejects(store.put('members/left', '2', left), /no lease/)
  await store.revoke(kept)
  t.same(await store.list('members/'), [])
  t.equal(await store.get('other'), '3')
})

t.test('a watch tells changes in order, of its prefix, until it is ended', async (t) => {
  const store = new MemoryStore()
  const seen: string[] = []
  const unwatch = store.watch('a/', (change) => seen.push(`${change.kind} ${change.key}`))
  await store.put('a/1', 'x')
  await store.put('b/1', 'x')
  await store.delete('a/1')
  await later(0)
  unwatch()
  await store.put('a/2', 'x')
  await later(0)
  t.same(seen, ['put a/1', 'delete a/1'])
})
