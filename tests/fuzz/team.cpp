// Many short loops on a Team under ThreadSanitizer: every index is called once, also if some calls throw, and
// what they throw reaches the caller of each(). Prints the number of loops.
#include "cpu/team.h"

#include <array>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <stdexcept>
#include <thread>
#include <vector>

int main(int, char** arguments) {
  const int64_t members = std::atoll(arguments[1]), loops = std::atoll(arguments[3]);
  std::mt19937_64 random(std::strtoull(arguments[2], nullptr, 10));
  wtal::Team team(members);
  std::vector<std::thread> helpers;
  for (int64_t member = 1; member < members; ++member)
    helpers.emplace_back([&team, member] { team.help(member); });
  int faults = 0;
  for (int64_t loop = 0; loop < loops; ++loop) {
    const int64_t count = 1 + random() % wtal::Team::kMost;
    const uint64_t throwing = random() % 3 ? 0 : random();  // a bit for each index
    std::array<int, wtal::Team::kMost> calls{};
    bool thrown = false;
    try {
      team.each(count, [&](int64_t i) {
        ++calls[i];
        if (throwing >> i & 1) throw std::runtime_error(std::to_string(i));
      });
    } catch (const std::runtime_error& error) {
      thrown = true;
      const int64_t index = std::atoll(error.what());
      faults += index < 0 || index >= count || !(throwing >> index & 1);
    }
    faults += thrown != ((throwing & ((1ULL << count) - 1)) != 0);
    for (int64_t i = 0; i < wtal::Team::kMost; ++i) faults += calls[i] != (i < count);
  }
  team.end();
  for (std::thread& helper : helpers) helper.join();
  std::printf("%lld loops\n", static_cast<long long>(loops));
  return faults != 0;
}
