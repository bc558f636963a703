#include "base/status.h"

namespace persia {

const char* ErrorCodeName(ErrorCode code) {
  switch (code) {
    case ErrorCode::kOk:
      return "OK";
#define PERSIA_ERROR(name, text, retryable, exit_code, meaning) \
  case ErrorCode::name:                                         \
    return text;
#include "base/error_codes.def"
#undef PERSIA_ERROR
  }
  return "PERSIA_INTERNAL";
}

}  // namespace persia
