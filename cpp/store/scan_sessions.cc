#include "store/scan_sessions.h"

#include <string>
#include <utility>

#include "base/named_thread.h"
#include "store/store_messages.h"

namespace persia {

ScanSessions::Scan::~Scan() {
  pieces.Close();
  if (thread.joinable()) thread.join();
}

uint64_t ScanSessions::Start(uint32_t row_class) {
  const auto scan = std::make_shared<Scan>();
  scan->thread = StartThread("scan", [this, row_class, &one = *scan] { Run(row_class, one); });
  std::shared_ptr<Scan> oldest;  // ends outside of the lock
  std::lock_guard lock(mutex_);
  if (scans_.size() >= most_) oldest = scans_.extract(scans_.begin()).mapped();
  scans_[++last_] = scan;
  return last_;
}

Result<Buffer> ScanSessions::Next(uint64_t number) {
  std::shared_ptr<Scan> scan;
  {
    std::lock_guard lock(mutex_);
    const auto found = scans_.find(number);
    if (found == scans_.end()) {
      return Status(ErrorCode::kUsage, "scan " + std::to_string(number) + " is over, or others took its place");
    }
    scan = found->second;
  }
  std::optional<Buffer> piece = scan->pieces.Pop();
  if (piece) return std::move(*piece);
  std::lock_guard lock(mutex_);
  scans_.erase(number);
  return EncodeWholeRows(0, {}, {}, {}, {});
}

void ScanSessions::Close() {
  std::map<uint64_t, std::shared_ptr<Scan>> scans;
  std::lock_guard lock(mutex_);
  std::swap(scans, scans_);
}

void ScanSessions::Run(uint32_t row_class, Scan& scan) const {
  std::vector<uint64_t> signs;
  std::vector<float> rows;
  std::vector<RowAge> ages;
  bool open = true;
  const auto hand_over = [&] {
    if (open && !signs.empty()) open = scan.pieces.Push(EncodeWholeRows(row_class, signs, rows, ages, {}));
    signs.clear();
    rows.clear();
    ages.clear();
  };
  const Status status = store_.Scan(row_class, [&](uint64_t sign, std::span<const float> row, RowAge age) {
    if (!open) return;  // nobody reads any more
    signs.push_back(sign);
    rows.insert(rows.end(), row.begin(), row.end());
    ages.push_back(age);
    if (signs.size() == kRowsOfPiece) hand_over();
  });
  PERSIA_CHECK(status.ok());  // the class was checked
  hand_over();
  scan.pieces.Close();
}

}  // namespace persia
