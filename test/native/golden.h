// Reads golden files: tensors that a committed script made with PyTorch, as text.
//
// One tensor a line, `name d0 d1 ... : v0 v1 ...`, values with nine digits (a float survives exactly) in row-major
// order; no dimension before the colon is a single number. A line that starts with '#' is a comment.
#pragma once

#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <map>
#include <span>
#include <sstream>
#include <string>
#include <vector>

namespace persia {

struct GoldenTensor {
  std::vector<uint64_t> shape;
  std::vector<float> values;
};

class GoldenFile {
 public:
  // `file` is a name within test/golden, or within the folder that PERSIA_GOLDEN_DIR names where the tests run. A missing
  // or malformed file fails the test.
  explicit GoldenFile(const std::string& file) : path_(Folder() + "/" + file) {
    std::ifstream in(path_);
    REQUIRE_MESSAGE(in.good(), "cannot read ", path_);
    for (std::string line; std::getline(in, line);) {
      if (!line.empty() && line[0] != '#') ReadLine(line);
    }
  }

  const GoldenTensor& operator[](const std::string& name) const {
    const auto found = tensors_.find(name);
    REQUIRE_MESSAGE(found != tensors_.end(), path_, " has no tensor ", name);
    return found->second;
  }

 private:
  static std::string Folder() {
    const char* named = std::getenv("PERSIA_GOLDEN_DIR");
    return named != nullptr ? named : PERSIA_GOLDEN_DIR;
  }

  void ReadLine(const std::string& line) {
    std::istringstream in(line);
    std::string name, word;
    in >> name;
    GoldenTensor tensor;
    uint64_t count = 1;
    while (in >> word && word != ":") {
      tensor.shape.push_back(std::stoull(word));
      count *= tensor.shape.back();
    }
    for (float value = 0; in >> value;) tensor.values.push_back(value);
    REQUIRE_MESSAGE(tensor.values.size() == count, path_, ": values of ", name, " do not fill its shape");
    tensors_[name] = std::move(tensor);
  }

  std::string path_;
  std::map<std::string, GoldenTensor> tensors_;
};

// Checks that no value is farther than `tolerance` from that of the golden tensor; a NaN is.
inline void CheckClose(const GoldenFile& golden, const std::string& name, std::span<const float> values,
                       double tolerance) {
  const auto& expected = golden[name].values;
  REQUIRE(expected.size() == values.size());
  double worst = 0;
  for (size_t i = 0; i < values.size(); ++i) {
    const double distance = std::abs(static_cast<double>(values[i]) - expected[i]);
    if (!(distance <= worst)) worst = distance;
    if (std::isnan(distance)) break;
  }
  CAPTURE(name);
  CHECK(worst < tolerance);
}

}  // namespace persia
