#include "trainer/loader_queue.h"

namespace persia {
namespace {

void Run(const std::vector<std::function<void()>>& calls) {
  for (const auto& call : calls) call();
}

}  // namespace

// ---- the reader's side ----------------------------------------------------------------------------------------------

void LoaderQueue::NextPass(uint64_t last, PassDone done) {
  Result<Pass> next = Status(ErrorCode::kClosed, "the data loader is closed");
  {
    std::lock_guard lock(mutex_);
    if (!closed_ && pass_.number == last) {
      next_pass_ = {last, std::move(done)};
      return;
    }
    if (!closed_) next = pass_;
  }
  done(std::move(next));
}

void LoaderQueue::Deliver(const BatchPlace& place, std::shared_ptr<const Batch> batch, Done done) {
  Calls due;
  {
    std::lock_guard lock(mutex_);
    Status status = Check(place.pass);
    if (status.ok()) {
      if (const auto asked = asked_.extract(place.batch); !asked.empty()) {
        due.push_back([ask = std::move(asked.mapped()), rows = batch->rows] { ask(std::optional<uint32_t>(rows)); });
      }
      ready_.insert_or_assign(place.batch, std::move(batch));
    }
    if (status.ok() && ready_.size() >= kMostReady) {
      delivered_ = std::move(done);
    } else {
      due.push_back([done = std::move(done), status] { done(status); });
    }
  }
  Run(due);
}

Status LoaderQueue::Finish(uint64_t pass) {
  Calls due;
  {
    std::lock_guard lock(mutex_);
    PERSIA_RETURN_IF_ERROR(Check(pass));
    finished_ = true;
    for (auto& [number, ask] : asked_) {
      due.push_back([ask = std::move(ask)] { ask(std::optional<uint32_t>()); });
    }
    asked_.clear();
  }
  Run(due);
  return Status::Ok();
}

// ---- the driver's side ----------------------------------------------------------------------------------------------

Status LoaderQueue::Open(Pass pass) {
  Calls due;
  {
    std::lock_guard lock(mutex_);
    if (closed_) return Check(pass.number);
    if (pass.number <= pass_.number) {
      return Status(ErrorCode::kUsage, "pass " + std::to_string(pass.number) + " is not after the one that is open, " +
                                           std::to_string(pass_.number));
    }
    EndPass(Status(ErrorCode::kAborted, "another pass over the data was opened"), due);
    pass_ = std::move(pass);
    finished_ = false;
    if (next_pass_) {
      due.push_back([done = std::move(next_pass_->second), opened = pass_] { done(opened); });
      next_pass_.reset();
    }
  }
  Run(due);
  return Status::Ok();
}

void LoaderQueue::Ask(const BatchPlace& place, AskDone done) {
  Result<std::optional<uint32_t>> rows = std::optional<uint32_t>();
  {
    std::lock_guard lock(mutex_);
    const auto found = ready_.find(place.batch);
    if (Status status = Check(place.pass); !status.ok()) {
      rows = status;
    } else if (found != ready_.end()) {
      rows = std::optional(found->second->rows);
    } else if (!finished_) {
      asked_.insert_or_assign(place.batch, std::move(done));
      return;
    }
  }
  done(std::move(rows));
}

Result<std::shared_ptr<const Batch>> LoaderQueue::Take(const BatchPlace& place) {
  std::shared_ptr<const Batch> batch;
  Done delivered;
  {
    std::lock_guard lock(mutex_);
    PERSIA_RETURN_IF_ERROR(Check(place.pass));
    const auto found = ready_.extract(place.batch);
    if (found.empty()) {
      return Status(ErrorCode::kUsage, "batch " + std::to_string(place.batch) + " is not ready");
    }
    batch = std::move(found.mapped());
    std::swap(delivered, delivered_);
  }
  if (delivered) delivered(Status::Ok());
  return batch;
}

// ---- both -----------------------------------------------------------------------------------------------------------

size_t LoaderQueue::ready() const {
  std::lock_guard lock(mutex_);
  return ready_.size();
}

void LoaderQueue::Close() {
  Calls due;
  {
    std::lock_guard lock(mutex_);
    if (closed_) return;
    closed_ = true;
    EndPass(Check(0), due);
    if (next_pass_) due.push_back([done = std::move(next_pass_->second), why = Check(0)] { done(why); });
    next_pass_.reset();
  }
  Run(due);
}

// Under mutex_.
Status LoaderQueue::Check(uint64_t pass) const {
  if (closed_) return Status(ErrorCode::kClosed, "the data loader is closed");
  if (pass == pass_.number) return Status::Ok();
  return Status(ErrorCode::kAborted, "pass " + std::to_string(pass) + " over the data is not the one that is open, " +
                                         std::to_string(pass_.number));
}

// Under mutex_.
void LoaderQueue::EndPass(const Status& why, Calls& due) {
  for (auto& [number, ask] : asked_) {
    due.push_back([ask = std::move(ask), why] { ask(why); });
  }
  if (delivered_) due.push_back([done = std::move(delivered_), why] { done(why); });
  delivered_ = nullptr;
  asked_.clear();
  ready_.clear();
}

}  // namespace persia
