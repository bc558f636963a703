// Touches memory before it is needed. The first touch of a huge page costs its zeroing, from a fraction of a
// millisecond to tens of them on a virtual machine: a thread of its own takes that off the threads that grow a table.
//
// One thread for the process ("persia-memory"), started with the first request. Short requests, of a huge page at most,
// go before long ones: they are made for what is needed next. A range that is used before it was touched is simply
// touched by its user, as without this.
//
// Where memory is used up faster than it can be touched, its users would run into untouched huge pages, and wait for a
// whole one each time. So they *pace* themselves (as an operating system slows down who dirties pages faster than a
// disk takes them): while the thread is behind, they sleep for as long as touching what they use takes, in portions of
// a fraction of a millisecond. That is what they would wait for in page faults, evenly spread.
//
// Thread-safety: internally synchronised. Asking never waits: a request that meets another one is dropped. Cancelling,
// which comes before memory is unmapped, waits for the step that is being touched (2 MiB) if it lies in the range.
#pragma once

#include <cstddef>

namespace persia {

// Asks for [begin, begin + bytes) to be touched soon, perhaps in vain: mapped, writable memory. Its contents don't
// change.
void PretouchSoon(void* begin, size_t bytes);

// Called for every (bytes) that a thread begins to use of memory that is touched ahead: sleeps at times, as said above.
void PaceUse(size_t bytes);

// Forgets requests within [begin, begin + bytes) and waits for one that is being served: call it before unmapping.
void CancelPretouch(void* begin, size_t bytes);

}  // namespace persia
