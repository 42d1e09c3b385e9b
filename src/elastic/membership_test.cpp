#include "elastic/membership.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/error.h"

namespace stoker::elastic {
namespace {

class FakeClock final : public Clock {
 public:
  double now_s() const override { return now; }
  double unix_s() const override { return 1e9 + now; }
  void sleep_s(double s) override { now += s; }
  double now = 100;
};

WorkerInfo worker(const std::string& name) {
  return {name, "host-" + name, 1000 + name.back(), "127.0.0.1", "here"};
}

struct World {
  explicit World(int target, int minimum = 1)
      : membership({.run = "r", .target = target, .minimum = minimum}, clock) {}
  void arrive(const std::string& name, uint64_t generation = 0, Standing standing = {}) {
    membership.arrive(worker(name), generation, {}, "state of " + name, std::move(standing));
  }
  void pass_time(double s, const std::vector<std::string>& alive) {
    for (double t = 0; t < s; t += 0.25) {
      clock.now += 0.25;
      for (const auto& name : alive) membership.heartbeat(worker(name), membership.generation(), pulse);
      membership.tick();
    }
  }
  std::string last_event(const std::string& kind) {
    std::string text;
    for (const Event& e : membership.events_after(0))
      if (e.kind == kind) text = e.text;
    return text;
  }
  FakeClock clock;
  Pulse pulse;
  Membership membership;
};
using Outcome = GateAnswer::Outcome;

TEST(Membership, FormsWhenTheWantedNumberHasCome) {
  World run(3);
  run.arrive("a");
  run.arrive("b");
  EXPECT_EQ(run.membership.gate("a").outcome, Outcome::kWait);
  run.arrive("c");
  for (const char* name : {"a", "b", "c"}) {
    const GateAnswer g = run.membership.gate(name);
    EXPECT_EQ(g.outcome, Outcome::kFormed);
    EXPECT_EQ(g.generation, 1u);
    ASSERT_EQ(g.members.size(), 3u);
    EXPECT_EQ(g.members[static_cast<size_t>(g.rank)].who.worker, name);
  }
  EXPECT_EQ(run.membership.gate("b").members[0].state, "state of a");
}

TEST(Membership, StartsWithFewerAfterAWhileButNotBelowTheMinimum) {
  World run(4, 2);
  run.arrive("a");
  run.pass_time(30, {"a"});
  EXPECT_EQ(run.membership.gate("a").outcome, Outcome::kWait);
  run.arrive("b");
  run.pass_time(1, {"a", "b"});
  EXPECT_EQ(run.membership.gate("a").outcome, Outcome::kFormed);
}

TEST(Membership, TheKilledOneIsNamedAndTheSurvivorsGoOn) {
  World run(3);
  for (const char* n : {"a", "b", "c"}) run.arrive(n);
  Pulse p{17, "backward", 0.1, "in tree_all_reduce #5", 0, 17};
  run.membership.heartbeat(worker("b"), 1, p);
  run.membership.ended("b", 0, 9);
  const std::string text = run.last_event("ended");
  for (const char* part : {"rank 1", "host-b", "signal 9", "backward", "step 17", "tree_all_reduce #5"})
    EXPECT_NE(text.find(part), std::string::npos) << text;
  EXPECT_TRUE(run.membership.heartbeat(worker("a"), 1, p).regroup_now);
  run.arrive("c", 1);
  EXPECT_EQ(run.membership.gate("c").outcome, Outcome::kWait);
  run.arrive("a", 1);
  EXPECT_EQ(run.membership.gate("c").outcome, Outcome::kFormed);
  EXPECT_EQ(run.membership.gate("c").rank, 1);
  EXPECT_EQ(run.membership.gate("c").members[1].previous_rank, 2);
  // The zombie wakes up: it can neither beat, nor join, nor commit.
  EXPECT_TRUE(run.membership.heartbeat(worker("b"), 1, p).fenced);
  run.arrive("b", 1);
  EXPECT_EQ(run.membership.gate("b").outcome, Outcome::kFenced);
  std::string why;
  EXPECT_FALSE(run.membership.may_commit("b", 1, &why));
  EXPECT_NE(why.find("signal 9"), std::string::npos);
  EXPECT_TRUE(run.membership.may_commit("a", 1, &why));
}

TEST(Membership, TheSilentOneIsPutOut) {
  World run(2);
  run.arrive("a");
  run.arrive("b");
  run.pass_time(6, {"a"});
  EXPECT_NE(run.last_event("silent").find("host-b"), std::string::npos);
  run.arrive("a", 1);
  EXPECT_EQ(run.membership.gate("a").members.size(), 1u);
}

TEST(Membership, ASleepOfTheCoordinatorIsNobodysFault) {
  World run(2);
  run.arrive("a");
  run.arrive("b");
  run.pass_time(1, {"a", "b"});
  run.clock.now += 60;  // the machine of the coordinator was paused
  run.membership.tick();
  EXPECT_TRUE(run.last_event("silent").empty());
  run.pass_time(6, {"a"});  // but who is silent afterwards is put out as ever
  EXPECT_NE(run.last_event("silent").find("host-b"), std::string::npos);
}

TEST(Membership, TheStuckOneIsPutOutThoughItsHeartBeats) {
  World run(3);
  for (const char* n : {"a", "b", "c"}) run.arrive(n);
  run.arrive("a", 1);
  run.arrive("b", 1);
  run.pass_time(7, {"a", "b", "c"});
  EXPECT_EQ(run.membership.gate("a").outcome, Outcome::kWait);
  run.pass_time(2, {"a", "b", "c"});
  EXPECT_EQ(run.membership.gate("a").outcome, Outcome::kFormed);
  EXPECT_NE(run.last_event("stuck").find("host-c"), std::string::npos);
}

// As it happened: rank 3's message 7 to rank 0 vanished. Rank 0 stays in that call; the others go on and miss rank 0. All give up
// in the same instant, and whoever is first accuses an innocent.
TEST(Membership, ALostMessageIsBlamedOnItsEndsWhoeverIsAccused) {
  World run(4);
  for (const char* n : {"a", "b", "c", "d"}) run.arrive(n);
  run.membership.accuse("b", 1, "c", "no answer");
  run.membership.accuse("d", 1, "c", "no answer");
  run.membership.accuse("c", 1, "a", "no answer");
  run.membership.accuse("a", 1, "c", "did not answer rank 3, which has left the group");
  run.arrive("a", 1, {3, 7, 1.5, {0, 8, 8, 8}});
  run.arrive("b", 1, {2, 9, 1.5, {8, 0, 9, 9}});
  run.arrive("c", 1, {0, 8, 1.5, {8, 9, 0, 9}});
  EXPECT_EQ(run.last_event("blamed"), "");  // not before all have spoken
  run.arrive("d", 1, {2, 9, 1.5, {8, 9, 9, 0}});
  EXPECT_NE(run.last_event("blamed").find("host-d"), std::string::npos) << run.last_event("blamed");
  EXPECT_NE(run.last_event("blamed").find("message 7 from rank 3 to rank 0"), std::string::npos);
  for (const Event& e : run.membership.events_after(0))
    if (e.kind == "blamed") {
      EXPECT_TRUE(e.worker == "a" || e.worker == "d") << e.text;
    }
  EXPECT_EQ(run.membership.gate("c").members.size(), 4u);
}

TEST(Membership, WhoHoldsTheOthersUpAndDoesNotComeIsBlamedBeforeItIsStuck) {
  World run(3);
  for (const char* n : {"a", "b", "c"}) run.arrive(n);
  run.membership.accuse("a", 1, "b", "no answer");
  run.arrive("a", 1, {1, 4, 1.5, {0, 5, 5}});
  run.arrive("b", 1, {2, 4, 1.5, {4, 0, 5}});
  run.pass_time(1.5, {"a", "b", "c"});
  EXPECT_NE(run.last_event("blamed").find("host-c"), std::string::npos) << run.last_event("blamed");
}

// The laptop slept: everybody's deadline has passed, and who wakes first accuses an innocent.
TEST(Membership, AMachineThatStoodStillIsNobodysFault) {
  World run(2);
  for (const char* n : {"a", "b"}) run.arrive(n);
  const auto accuse_after = [&](double pause_s) {
    run.pass_time(1, {"a", "b"});
    run.clock.now += pause_s;
    const uint64_t generation = run.membership.generation();
    run.membership.accuse("a", generation, "b", "gave no answer before the deadline");
    run.arrive("a", generation, {1, 4, 60, {0, 4}});
    run.arrive("b", generation, {-1, -1, 0, {4, 0}});
    run.membership.tick();
  };
  accuse_after(60);
  EXPECT_EQ(run.last_event("blamed"), "");
  EXPECT_EQ(run.last_event("silent"), "");
  EXPECT_NE(run.last_event("standstill").find("stood still for 60"), std::string::npos)
      << run.last_event("standstill");
  EXPECT_EQ(run.membership.gate("a").members.size(), 2u);
  run.pass_time(5, {"a", "b"});
  accuse_after(0.25);  // a while later deadlines count again
  EXPECT_NE(run.last_event("blamed").find("host-b"), std::string::npos) << run.last_event("blamed");
}

TEST(Blame, OfSeveralLossesTheRankThatHasAPartInMost) {
  const std::map<int, Standing> half_open{
      {0, {1, 5, 2, {0, 6, 6}}}, {1, {2, 5, 2, {6, 0, 6}}}, {2, {1, 5, 2, {6, 6, 0}}}};
  // 1 misses 2, 2 misses 1, 0 misses 1: all were sent
  const auto found = who_held_up(half_open);
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].rank, 1);
}

// As it happened: nothing reaches rank 2 any more. It stays in its first wait and has begun no message that others miss.
TEST(Blame, AReceiverThatHearsNothingIsAmongTheEndsOfTheLoss) {
  const auto found = who_held_up({{0, {2, 90, 1.5, {0, 90, 184, 90}}},
                                  {1, {2, 90, 1.5, {90, 0, 185, 90}}},
                                  {2, {1, 184, 1.5, {90, 90, 0, 90}}},
                                  {3, {2, 90, 1.5, {90, 90, 184, 0}}}});
  ASSERT_EQ(found.size(), 2u);
  EXPECT_EQ(found[0].rank, 1);
  EXPECT_EQ(found[1].rank, 2);
}

TEST(Blame, BothEndsWhenNothingTellsThemApart) {
  EXPECT_EQ(who_held_up({{0, {1, 0, 2, {0, 1}}}, {1, {0, 0, 2, {1, 0}}}}).size(), 2u);
}

TEST(Blame, AWaitThatWasCutShortProvesNothing) {
  // 1 gave up on 2, which computes, and left; 0 had just begun to wait for what 1 was sending.
  const auto found =
      who_held_up({{0, {1, 3, 0.01, {0, 3, 3}}}, {1, {2, 3, 2, {4, 0, 4}}}, {2, {-1, -1, 0, {3, 3, 0}}}});
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].rank, 2);
}

TEST(Blame, NobodyInACircleWithoutALoss) {
  EXPECT_TRUE(who_held_up({{0, {1, 3, 2, {0, 3}}}, {1, {0, 3, 2, {3, 0}}}}).empty());
  EXPECT_TRUE(who_held_up({}).empty());
}

TEST(Membership, ABadLinkCostsTheEndThatIsAccusedTwice) {
  World run(3);
  for (const char* n : {"a", "b", "c"}) run.arrive(n);
  for (uint64_t generation : {uint64_t{1}, uint64_t{2}}) {
    run.membership.accuse("a", generation, "c", "no answer");
    run.membership.accuse("b", generation, "c", "no answer");
    for (const char* n : {"a", "b", "c"}) run.arrive(n, generation);
  }
  EXPECT_NE(run.last_event("link").find("host-c"), std::string::npos);
  EXPECT_EQ(run.membership.gate("a").members.size(), 2u);
}

TEST(Membership, AFinishedStepClearsTheAccusations) {
  World run(2);
  run.arrive("a");
  run.arrive("b");
  run.membership.accuse("a", 1, "b", "no answer");
  run.arrive("a", 1);
  run.arrive("b", 1);
  run.pulse.step = 5;
  run.pass_time(1, {"a", "b"});
  run.membership.accuse("a", 2, "b", "no answer");
  run.arrive("a", 2);
  run.arrive("b", 2);
  EXPECT_EQ(run.membership.gate("b").outcome, Outcome::kFormed);
  EXPECT_EQ(run.membership.gate("b").members.size(), 2u);
}

TEST(Membership, GrowsAndShrinksOnRequest) {
  World run(2);
  run.arrive("a");
  run.arrive("b");
  run.arrive("c");
  EXPECT_EQ(run.membership.gate("c").outcome, Outcome::kWait);  // a spare
  EXPECT_FALSE(run.membership.heartbeat(worker("a"), 1, {}).regroup_soon);
  run.membership.scale(3);
  EXPECT_TRUE(run.membership.heartbeat(worker("a"), 1, {}).regroup_soon);
  run.arrive("a", 1);
  run.arrive("b", 1);
  EXPECT_EQ(run.membership.gate("c").outcome, Outcome::kFormed);
  EXPECT_EQ(run.membership.gate("c").rank, 2);
  run.membership.scale(1);
  EXPECT_TRUE(run.membership.heartbeat(worker("a"), 2, {}).regroup_soon);
  for (const char* n : {"a", "b", "c"}) run.arrive(n, 2);
  EXPECT_EQ(run.membership.gate("a").outcome, Outcome::kFormed);
  EXPECT_EQ(run.membership.gate("c").outcome, Outcome::kReleased);
  EXPECT_THROW(run.membership.scale(0), Error);
}

TEST(Membership, WaitsBelowTheMinimum) {
  World run(2, 2);
  run.arrive("a");
  run.arrive("b");
  run.membership.ended("b", 1, 0);
  run.arrive("a", 1);
  run.pass_time(60, {"a"});
  EXPECT_EQ(run.membership.gate("a").outcome, Outcome::kWait);
  run.arrive("c");
  EXPECT_EQ(run.membership.gate("a").outcome, Outcome::kFormed);
}

TEST(Membership, TheSlowOneIsNamedWithinTwentySteps) {
  World run(3);
  for (const char* n : {"a", "b", "c"}) run.arrive(n);
  uint64_t named_at = 0;
  for (uint64_t step = 1; step <= 20; ++step)
    for (const char* n : {"a", "b", "c"}) {
      run.membership.heartbeat(worker(n), 1,
                               {static_cast<int64_t>(step), "forward", 0, "", n[0] == 'b' ? 0.2 : 0.1, step});
      if (named_at == 0 && !run.last_event("slow").empty()) named_at = step;
    }
  EXPECT_GT(named_at, 0u);
  EXPECT_LE(named_at, 20u);
  EXPECT_NE(run.last_event("slow").find("host-b"), std::string::npos);
  EXPECT_EQ(run.membership.gate("b").outcome, Outcome::kFormed);  // named, not put out
}

TEST(Membership, ComesBackFromItsStateAsIfItHadNotBeenAway) {
  World run(2);
  run.arrive("a");
  run.arrive("b");
  run.arrive("z");
  run.membership.ended("z", 1, 0);
  World again(2);
  again.membership.load(run.membership.save());
  EXPECT_EQ(again.membership.generation(), 1u);
  EXPECT_FALSE(again.membership.heartbeat(worker("a"), 1, {}).regroup_now);
  EXPECT_TRUE(again.membership.heartbeat(worker("z"), 1, {}).fenced);
  again.pass_time(14, {"a"});  // b died while the coordinator was away, or does not find it yet
  EXPECT_EQ(again.last_event("silent"), "");
  again.pass_time(2, {"a"});
  EXPECT_NE(again.last_event("silent").find("host-b"), std::string::npos);
  EXPECT_THROW(again.membership.load("{}"), Error);
  EXPECT_THROW(again.membership.load("not json"), Error);
}

TEST(Membership, ACoordinatorWithoutStateLearnsTheGenerationFromTheLiving) {
  World run(2);
  run.membership.heartbeat(worker("a"), 7, {});
  run.membership.heartbeat(worker("b"), 7, {});
  run.arrive("a", 7);
  run.arrive("b", 7);
  EXPECT_EQ(run.membership.gate("a").outcome, Outcome::kFormed);
  EXPECT_EQ(run.membership.gate("a").generation, 8u);
}

TEST(Membership, AnotherAttemptIsTurnedAwayAndHasTimeToHearIt) {
  World first(2);
  first.arrive("j1.0.0.r0");
  first.arrive("j1.0.0.r1");
  FakeClock clock;
  Membership second({.run = "r", .target = 2, .admit = "j1.0.1."}, clock);
  second.load(first.membership.save());
  EXPECT_TRUE(second.heartbeat(worker("j1.0.0.r0"), 1, {}).fenced);
  std::string why;
  EXPECT_FALSE(second.may_commit("j1.0.0.r0", 1, &why));
  for (const char* name : {"j1.0.1.r0", "j1.0.1.r1"}) second.arrive(worker(name), 0, {}, "");
  EXPECT_EQ(second.gate("j1.0.1.r0").outcome, Outcome::kWait);  // zombies may still be writing
  clock.now += 2.5;
  second.tick();
  EXPECT_EQ(second.gate("j1.0.1.r0").outcome, Outcome::kFormed);
  EXPECT_EQ(second.gate("j1.0.1.r0").generation, 2u);
  EXPECT_FALSE(second.heartbeat(worker("join.h.7"), 0, {}).fenced);
}

TEST(Membership, ARetiredCoordinatorPutsEverybodyOut) {
  World run(1);
  run.arrive("a");
  run.membership.retire("the run has another coordinator now: h:1");
  EXPECT_TRUE(run.membership.heartbeat(worker("a"), 1, {}).fenced);
  std::string why;
  EXPECT_FALSE(run.membership.may_commit("a", 1, &why));
  EXPECT_NE(why.find("another coordinator"), std::string::npos);
  run.arrive("late");
  EXPECT_NE(run.membership.gate("late").outcome, Outcome::kFormed);
}

TEST(Membership, WallTimeIsAccountedFor) {
  World run(2);
  run.arrive("a");
  run.arrive("b");
  run.pass_time(4, {"a", "b"});
  run.membership.ended("b", 0, 9);
  run.pass_time(2, {"a"});
  run.arrive("a", 1);
  run.pass_time(3, {"a"});
  const auto j = nlohmann::json::parse(run.membership.status_json());
  EXPECT_NEAR(j["account_s"]["training"].get<double>(), 7, 0.6);
  EXPECT_NEAR(j["account_s"]["ended"].get<double>(), 2, 0.6);
}

TEST(Membership, FinishingIsNotAFailure) {
  World run(2);
  run.arrive("a");
  run.arrive("b");
  run.membership.leave("a", true);
  EXPECT_TRUE(run.membership.finished());
  EXPECT_FALSE(run.membership.heartbeat(worker("b"), 1, {}).regroup_now);
  run.arrive("late");
  EXPECT_EQ(run.membership.gate("late").outcome, Outcome::kReleased);
  run.membership.ended("late", 0, 0);
  run.membership.leave("b", true);
  EXPECT_TRUE(run.membership.nobody_left());
}

}  // namespace
}  // namespace stoker::elastic
