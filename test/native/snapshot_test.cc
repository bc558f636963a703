// Snapshot files: what is written comes back, and no change to a file goes unnoticed.
#include "checkpoint/snapshot.h"

#include <filesystem>
#include <fstream>
#include <iterator>

#include <doctest/doctest.h>
#include <unistd.h>

#include "sanitizers.h"

namespace persia {
namespace {

struct TemporaryDirectory {
  TemporaryDirectory() {
    char name[] = "/tmp/persia-snapshot-XXXXXX";
    REQUIRE(mkdtemp(name) != nullptr);
    path = name;
  }
  ~TemporaryDirectory() { std::filesystem::remove_all(path); }
  std::string path;
};

SnapshotFile WriteSample(const std::string& directory, size_t floats) {
  SnapshotWriter writer(directory, "sample.bin", SnapshotKind::kDense);
  writer.Value(uint32_t{7});
  writer.Text("layer.0.weight");
  std::vector<float> values(floats);
  for (size_t i = 0; i < floats; ++i) values[i] = static_cast<float>(i);
  writer.Floats(values);
  Result<SnapshotFile> file = writer.Finish();
  REQUIRE(file.ok());
  return *file;
}

// Reads the sample back; the first error, or OK.
Status ReadSample(const std::string& directory, size_t floats) {
  Result<SnapshotReader> reader = SnapshotReader::Open(directory + "/sample.bin", SnapshotKind::kDense);
  if (!reader.ok()) return reader.status();
  uint32_t number;
  std::string text;
  std::vector<float> values(floats);
  PERSIA_RETURN_IF_ERROR(reader->Value(&number));
  PERSIA_RETURN_IF_ERROR(reader->Text(&text, 64));
  PERSIA_RETURN_IF_ERROR(reader->Floats(values));
  PERSIA_RETURN_IF_ERROR(reader->ExpectEnd());
  CHECK(number == 7);
  CHECK(text == "layer.0.weight");
  for (size_t i = 0; i < floats; ++i) REQUIRE(values[i] == static_cast<float>(i));
  return Status::Ok();
}

std::vector<char> Contents(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

void Overwrite(const std::string& path, const std::vector<char>& bytes) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

}  // namespace

TEST_CASE("a snapshot file comes back as it was written, over several blocks") {
  TemporaryDirectory directory;
  const SnapshotFile file = WriteSample(directory.path, 700'000);
  CHECK(file.bytes == std::filesystem::file_size(directory.path + "/sample.bin"));
  CHECK(ReadSample(directory.path, 700'000).ok());
  CHECK(SnapshotReader::Verify(directory.path, file).ok());
}

TEST_CASE("every flipped bit of a snapshot file is found by reading it and by verifying it" * OneThread()) {
  TemporaryDirectory directory;
  const SnapshotFile file = WriteSample(directory.path, 20);
  const std::string path = directory.path + "/sample.bin";
  const std::vector<char> good = Contents(path);
  for (size_t byte = 0; byte < good.size(); ++byte) {
    for (int bit = 0; bit < 8; ++bit) {
      std::vector<char> bad = good;
      bad[byte] = static_cast<char>(bad[byte] ^ (1 << bit));
      Overwrite(path, bad);
      REQUIRE(ReadSample(directory.path, 20).code() == ErrorCode::kCheckpointDamaged);
      REQUIRE(SnapshotReader::Verify(directory.path, file).code() == ErrorCode::kCheckpointDamaged);
    }
  }
}

TEST_CASE("a snapshot file that is cut at any byte, or longer than written, is refused") {
  TemporaryDirectory directory;
  const SnapshotFile file = WriteSample(directory.path, 20);
  const std::string path = directory.path + "/sample.bin";
  const std::vector<char> good = Contents(path);
  for (size_t size = 0; size < good.size(); ++size) {
    Overwrite(path, std::vector<char>(good.begin(), good.begin() + static_cast<std::ptrdiff_t>(size)));
    REQUIRE(ReadSample(directory.path, 20).code() == ErrorCode::kCheckpointDamaged);
    REQUIRE(SnapshotReader::Verify(directory.path, file).code() == ErrorCode::kCheckpointDamaged);
  }
  std::vector<char> longer = good;
  longer.push_back(0);
  Overwrite(path, longer);
  CHECK(ReadSample(directory.path, 20).code() == ErrorCode::kCheckpointDamaged);
  CHECK(SnapshotReader::Verify(directory.path, file).code() == ErrorCode::kCheckpointDamaged);
}

TEST_CASE("swapped blocks are found although each is whole") {
  TemporaryDirectory directory;
  const size_t floats = 700'000;  // two full blocks and a rest
  WriteSample(directory.path, floats);
  const std::string path = directory.path + "/sample.bin";
  std::vector<char> bytes = Contents(path);
  constexpr size_t kHead = 24, kBlock = 8 + (1 << 20) + 8;
  std::swap_ranges(bytes.begin() + kHead, bytes.begin() + kHead + kBlock, bytes.begin() + kHead + kBlock);
  Overwrite(path, bytes);
  CHECK(ReadSample(directory.path, floats).code() == ErrorCode::kCheckpointDamaged);
}

TEST_CASE("a missing file, a file of another kind and a name that is too long are refused") {
  TemporaryDirectory directory;
  WriteSample(directory.path, 3);
  CHECK(SnapshotReader::Open(directory.path + "/none.bin", SnapshotKind::kDense).status().code() ==
        ErrorCode::kCheckpointDamaged);
  CHECK(SnapshotReader::Open(directory.path + "/sample.bin", SnapshotKind::kEmbedding).status().code() ==
        ErrorCode::kCheckpointDamaged);
  Result<SnapshotReader> reader = SnapshotReader::Open(directory.path + "/sample.bin", SnapshotKind::kDense);
  uint32_t number;
  std::string text;
  REQUIRE(reader->Value(&number).ok());
  CHECK(reader->Text(&text, 4).code() == ErrorCode::kCheckpointDamaged);
}

TEST_CASE("a file that cannot be written says why and is not reported as done") {
  SnapshotWriter writer("/nonexistent-directory", "sample.bin", SnapshotKind::kDense);
  writer.Value(uint32_t{1});
  const Result<SnapshotFile> file = writer.Finish();
  CHECK(file.status().code() == ErrorCode::kIo);
  CHECK(file.status().message().find("/nonexistent-directory/sample.bin") != std::string::npos);
}

}  // namespace persia
