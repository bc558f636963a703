// Seeds of a fuzz target, written by the target itself from real encodings:
//
//   out/fuzz/TARGET --write-seeds=test/fuzz/corpus/TARGET
//
// does only that. Run it when the format of what is encoded changes.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <string_view>

#include "base/status.h"
#include "net/buffer.h"

namespace persia {

using Seeds = std::map<std::string, std::string>;  // by file name

inline std::string TextOf(const Buffer& buffer) { return {reinterpret_cast<const char*>(buffer.data()), buffer.size()}; }

// To be called in LLVMFuzzerInitialize. Ends the process when seeds were asked for.
inline void WriteSeedsIfAsked(int argc, char** argv, Seeds (*make)()) {
  constexpr std::string_view kFlag = "--write-seeds=";
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    if (!argument.starts_with(kFlag)) continue;
    const std::filesystem::path folder = argument.substr(kFlag.size());
    std::filesystem::remove_all(folder);
    std::filesystem::create_directories(folder);
    const Seeds seeds = make();
    for (const auto& [name, bytes] : seeds) {
      std::ofstream file(folder / name, std::ios::binary);
      PERSIA_CHECK(file.write(bytes.data(), static_cast<std::streamsize>(bytes.size())).good());
    }
    std::printf("%zu seeds in %s\n", seeds.size(), folder.c_str());
    std::exit(0);
  }
}

}  // namespace persia
