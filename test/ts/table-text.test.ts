// The summary of the embedding table at the end of a run.
import t from 'tap'
import { byteText, bytesOf } from '#persia/config/byte-size.js'
import { tableText } from '#persia/cli/table-text.js'

const counters = {
  rows: 1500, bytes: 3 * 2 ** 20, lanes: 2000, hits: 900, misses: 100, inserts: 1600, evictions: 100, expired: 0, refused: 0,
  missedUpdates: 0, nonFiniteSkipped: 0,
}

t.test('a line of totals and a line a feature group, the largest first', async (t) => {
  const groups = [
    { ...counters, features: ['user', 'friend'], rows: 300, hits: 0, misses: 0 },
    { ...counters, features: ['item'], rows: 1200 },
  ]
  t.same(tableText({ ...counters, groups, distinct: { user: 299.6, friend: 12, item: 1234567 } }).split('\n'), [
    'table: 1,500 rows in 3.0 MiB, index 75.0 % full',
    'feature group      ids ~   rows    hits  inserted  evicted  refused',
    'item           1,234,567  1,200  90.0 %     1,600      100        0',
    'user + friend   300 + 12    300     n/a     1,600      100        0',
    'all                       1,500  90.0 %     1,600      100        0',
  ])
})

t.test('what should not happen is said only when it did, and one group needs no sum', async (t) => {
  const groups = [{ ...counters, features: ['item'] }]
  const text = tableText({ ...counters, expired: 5, nonFiniteSkipped: 2, missedUpdates: 1, groups, distinct: { item: 9 } })
  t.match(text, '75.0 % full, 5 expired, 1 updates without a row, 2 NaN or infinite gradients\n')
  t.equal(text.split('\n').length, 3)
})

t.test('a long list of groups is cut', async (t) => {
  const groups = Array.from({ length: 50 }, (_, index) => ({ ...counters, features: [`f${index}`] }))
  t.match(tableText({ ...counters, groups, distinct: {} }), /\nall .*\n… and 30 more feature groups$/)
})

t.test('sizes in bytes read back', async (t) => {
  const sizes = { '1KB': 1000, '1.5KiB': 1536, '512MiB': 2 ** 29, '2 GB': 2e9, '8GiB': 2 ** 33, '0.5TiB': 2 ** 39 }
  for (const [text, bytes] of Object.entries(sizes)) t.equal(bytesOf(text), bytes, text)
  t.same([0, 1023, 1024, 1536 * 1024, 2 ** 33, 2 ** 52].map(byteText), ['0 B', '1023 B', '1.0 KiB', '1.5 MiB', '8.0 GiB', '4096.0 TiB'])
})
