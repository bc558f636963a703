// Status and Result<T>: how every C++ function reports failure. No exception crosses a module.
//
// A Status is a code of the one catalogue (error_codes.def), a message for people and an ordered list of detail fields
// ("file" -> "train.csv") for programs. A broken invariant is no Status: PERSIA_CHECK ends the process, in release too.
//
// Thread-safety: values; as safe as a std::string.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace persia {

enum class ErrorCode {
  kOk,
#define PERSIA_ERROR(name, text, retryable, exit_code, meaning) name,
#include "base/error_codes.def"
#undef PERSIA_ERROR
};

// The code's name in messages and in TypeScript, such as "PERSIA_TABLE_FULL"; "OK" for kOk.
const char* ErrorCodeName(ErrorCode code);

class [[nodiscard]] Status {
 public:
  Status() = default;  // OK
  Status(ErrorCode code, std::string message) : code_(code), message_(std::move(message)) {}

  static Status Ok() { return Status(); }

  // Adds a detail field and returns the status, for chaining at the place of failure.
  Status&& With(std::string key, std::string value) && {
    details_.emplace_back(std::move(key), std::move(value));
    return std::move(*this);
  }

  bool ok() const { return code_ == ErrorCode::kOk; }
  ErrorCode code() const { return code_; }
  const std::string& message() const { return message_; }
  const std::vector<std::pair<std::string, std::string>>& details() const { return details_; }

 private:
  ErrorCode code_ = ErrorCode::kOk;
  std::string message_;
  std::vector<std::pair<std::string, std::string>> details_;
};

// A value or the Status that says why there is none.
template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : value_(std::move(value)) {}            // NOLINT: implicit by design
  Result(Status status) : status_(std::move(status)) {}    // NOLINT: implicit by design

  bool ok() const { return value_.has_value(); }
  const Status& status() const { return status_; }
  T& value() { return *value_; }
  const T& value() const { return *value_; }
  T& operator*() { return *value_; }
  T* operator->() { return &*value_; }

 private:
  std::optional<T> value_;
  Status status_;
};

[[noreturn]] inline void CheckFailed(const char* condition, const char* file, int line) {
  std::fprintf(stderr, "persia: broken invariant: %s (%s:%d)\n", condition, file, line);
  std::abort();
}

}  // namespace persia

#define PERSIA_CHECK(condition) \
  (static_cast<bool>(condition) ? void(0) : ::persia::CheckFailed(#condition, __FILE__, __LINE__))

#define PERSIA_RETURN_IF_ERROR(expression)                   \
  do {                                                       \
    if (::persia::Status status_ = (expression); !status_.ok()) return status_; \
  } while (false)
