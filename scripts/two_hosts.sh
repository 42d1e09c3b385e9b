# Sourced by scripts that need two more machines than there are: network namespaces NAME1 and NAME2, at NET.2 and NET.3 behind one bridge; this
# machine is NET.1. Needs root and iproute2.
make_two_hosts() { # name net [rate of each cable, both ways, as tc says it]
  local i
  ip link add "$1" type bridge
  ip addr add "$2.1/24" dev "$1"
  ip link set "$1" up
  for i in 1 2; do
    ip netns add "$1$i"
    ip link add "$1-$i" type veth peer name eth0 netns "$1$i"
    ip link set "$1-$i" master "$1" up
    ip -n "$1$i" addr add "$2.$((i + 1))/24" dev eth0
    ip -n "$1$i" link set eth0 up
    ip -n "$1$i" link set lo up
    [ $# -gt 2 ] || continue
    tc qdisc add dev "$1-$i" root tbf rate "$3" burst 256kb latency 50ms
    tc -n "$1$i" qdisc add dev eth0 root tbf rate "$3" burst 256kb latency 50ms
  done
}
remove_two_hosts() { # name
  local i
  for i in 1 2; do ip netns del "$1$i" 2>/dev/null || true; done
  ip link del "$1" 2>/dev/null || true
}
