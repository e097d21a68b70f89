# A cluster of three RabbitMQ nodes on this machine, and a load on it while one of them is killed: sourced by tests/run,
# after rabbitmq.bash.
#
#   cluster_start           three nodes, joined; sets CLUSTER_URLS (comma-separated)
#   cluster_survives PROGRAM TRANSPORT
#                           2 000 calls by that fib_pool while the node with the queue's leader is killed and restarted
#   cluster_stop            stops what cluster_start started; safe to call twice
#
# Everything is in one temporary directory, on loopback, on ports nobody else holds, under an epmd and a cookie of its
# own.

CLUSTER_URLS=
cluster_home=
cluster_epmd_port=
cluster_epmd_pid=
cluster_load_pid=
# By node, 1 to 3.
cluster_groups=()
cluster_amqp_ports=()
cluster_dist_ports=()

CLUSTER_CALLS=2000
# Slow enough that the node is back while calls are still being made.
CLUSTER_CALLS_PER_SECOND=40
CLUSTER_LOAD_LIMIT_S=150

cluster_start() {
    local node port
    rabbitmq_program >/dev/null || {
        echo "rabbitmq-server is not installed" >&2
        return 1
    }
    cluster_home=$(mktemp -d /tmp/rpc-tests-cluster.XXXXXX) || return 1
    head -c 30 /dev/urandom | base64 | tr -dc A-Za-z0-9 >"$cluster_home/.erlang.cookie"
    chmod 400 "$cluster_home/.erlang.cookie"
    rabbitmq_take_port || return 1
    cluster_epmd_port=$port
    rabbitmq_start_epmd "$cluster_home" "$port"
    cluster_epmd_pid=$!
    for node in 1 2 3; do
        rabbitmq_take_port || return 1
        cluster_amqp_ports[node]=$port
        rabbitmq_take_port || return 1
        cluster_dist_ports[node]=$port
        rabbitmq_write_ctl "$cluster_home/ctl$node" "$cluster_home" "$cluster_epmd_port" "rpc-cluster-$node@localhost"
        cluster_write_node "$node" || return 1
        CLUSTER_URLS+=${CLUSTER_URLS:+,}amqp://guest:guest@127.0.0.1:${cluster_amqp_ports[node]}
    done
    # The first one is a cluster by itself; those that start empty afterwards find it in their configuration, and join.
    cluster_start_node 1
    cluster_node_answers 1 || return 1
    cluster_start_node 2
    cluster_start_node 3
    cluster_node_answers 2 && cluster_node_answers 3 && cluster_ctl 1 await_online_nodes 3
}

# cluster_ctl NODE ARGUMENT...
cluster_ctl() {
    local node=$1
    shift
    timeout -k 5 60 "$cluster_home/ctl$node" --quiet "$@"
}

# cluster_write_node NODE: its configuration, and the program that starts it.
cluster_write_node() {
    local node=$1 folder=$cluster_home/$1
    mkdir -p "$folder"
    cat >"$folder/rabbitmq.conf" <<-CONF
		listeners.tcp.1 = 127.0.0.1:${cluster_amqp_ports[node]}
		log.console = false
		log.file.level = warning
	CONF
    # RabbitMQ 4 waits for every node it is told of, so each is told of the first one, and the first one of none.
    if ((node > 1)); then
        cat >>"$folder/rabbitmq.conf" <<-CONF
			cluster_formation.peer_discovery_backend = classic_config
			cluster_formation.classic_config.nodes.1 = rpc-cluster-1@localhost
			cluster_formation.classic_config.nodes.2 = rpc-cluster-$node@localhost
		CONF
    fi
    rabbitmq_write_start "$folder/start" "$cluster_home" "$folder" "$cluster_epmd_port" "${cluster_dist_ports[node]}" \
        "rpc-cluster-$node@localhost"
}

cluster_start_node() {
    "$cluster_home/$1/start"
    cluster_groups[$1]=$(<"$cluster_home/$1/group")
}

cluster_node_answers() {
    local node=$1 deadline=$((SECONDS + RABBITMQ_START_LIMIT_S))
    until rabbitmq_answers "${cluster_amqp_ports[node]}"; do
        if ! kill -0 "${cluster_groups[node]}" 2>/dev/null || ((SECONDS >= deadline)); then
            echo "node $node does not answer; its last words:" >&2
            tail -n 20 "$cluster_home/$node/console.log" "$cluster_home/$node"/log/*.log 2>/dev/null | sed 's/^/    /' >&2
            return 1
        fi
        sleep 0.2
    done
}

# cluster_leader QUEUE NODE [VHOST]: the node that leads the queue, asked from that one; nothing if there is no such queue.
cluster_leader() {
    cluster_ctl "$2" list_queues -p "${3-/}" --no-table-headers name leader |
        sed -n "s/^${1//./\\.}[[:space:]].*rpc-cluster-\([123]\)@.*/\1/p"
}

# How many calls are answered so far: a load says it every second, fib_pool as `… N/2000 calls`, test_load as `answered N`.
cluster_answered() {
    sed -n 's/.* \([0-9]*\)\/[0-9]* calls$/\1/p; s/^answered //p' "$cluster_home/load.err" "$cluster_home/load.out" \
        2>/dev/null | tail -n 1 | grep . || echo 0
}

# cluster_load_reaches COUNT LIMIT_S
cluster_load_reaches() {
    local deadline=$((SECONDS + $2))
    until (($(cluster_answered) >= $1)); do
        if ! kill -0 "$cluster_load_pid" 2>/dev/null || ((SECONDS >= deadline)); then
            echo "the load does not reach $1 calls; it said:" >&2
            tail -n 5 "$cluster_home/load.out" "$cluster_home/load.err" >&2
            return 1
        fi
        sleep 0.2
    done
}

cluster_survives() {
    local program=$1 urls="${CLUSTER_URLS//,/?transport=$2,}?transport=$2"
    local leader other answered status killed back executions longest begin=$EPOCHREALTIME
    # An earlier load's words are not this one's.
    rm -f "$cluster_home"/load.*
    timeout -k 5 "$CLUSTER_LOAD_LIMIT_S" "$program" --url "$urls" --queue-kind quorum --workers 2 --n 20 \
        --requests "$CLUSTER_CALLS" --rate "$CLUSTER_CALLS_PER_SECOND" --in-flight 32 \
        </dev/null >"$cluster_home/load.out" 2>"$cluster_home/load.err" &
    cluster_load_pid=$!
    cluster_load_reaches $((CLUSTER_CALLS / 5)) "$CLUSTER_LOAD_LIMIT_S" || return 1
    leader=$(cluster_leader rpc.fibonacci 1)
    [[ $leader == [123] ]] || {
        echo "no leader found for rpc.fibonacci: '$leader'" >&2
        return 1
    }
    other=$((leader % 3 + 1))
    kill -KILL -- "-${cluster_groups[leader]}"
    killed=$(seconds_since "$begin")
    answered=$(cluster_answered)
    echo "node $leader led the queue and was killed after $killed s, with $answered calls answered"
    # Two nodes carry on.
    cluster_load_reaches $((answered + 200)) "$CLUSTER_LOAD_LIMIT_S" || return 1
    echo "node $(cluster_leader rpc.fibonacci "$other") leads it now; 200 calls more were answered by $(seconds_since "$begin") s"
    cluster_start_node "$leader"
    cluster_node_answers "$leader" || return 1
    back=$(seconds_since "$begin")
    echo "node $leader was back after $back s, with $(cluster_answered) calls answered"
    wait "$cluster_load_pid"
    status=$?
    cluster_load_pid=
    cat "$cluster_home/load.out"
    if ((status != 0)); then
        echo "fib_pool exited with $status:" >&2
        tail -n 5 "$cluster_home/load.err" >&2
        return 1
    fi
    # Each call's deadline is 60 s; fib_pool has checked that each was answered, and rightly.
    longest=$(awk '/^latency/ { getline; print int($4); exit }' "$cluster_home/load.out")
    executions=$(awk '/^worker/ { table = 1; next } table { sum += $2 } END { print sum + 0 }' "$cluster_home/load.out")
    echo "$CLUSTER_CALLS idempotent calls answered, $executions executed, the longest took $longest ms of its 60 s"
    if ((executions < CLUSTER_CALLS || longest >= 60000)); then
        echo "fewer executed than answered, or an answer after its deadline" >&2
        return 1
    fi
    # The restarted node is a member again, and nothing is left behind.
    local deadline=$((SECONDS + 60)) queue
    until queue=$(cluster_ctl "$other" list_queues --no-table-headers name messages online) &&
        [[ $queue =~ rpc\.fibonacci[[:space:]]0[[:space:]] && $(grep '^rpc\.fibonacci[[:space:]]' <<<"$queue" | grep -o '@localhost' | wc -l) == 3 ]]; do
        if ((SECONDS >= deadline)); then
            echo "the queue is not whole again: $queue" >&2
            return 1
        fi
        sleep 0.5
    done
    echo "the queue is empty, and all its members are online"
}

cluster_stop() {
    local group
    [[ -n $cluster_load_pid ]] && kill -KILL "$cluster_load_pid" 2>/dev/null
    # Nothing in them is kept.
    for group in "${cluster_groups[@]}"; do
        kill -KILL -- "-$group" 2>/dev/null
    done
    for group in "${cluster_groups[@]}"; do
        while kill -0 -- "-$group" 2>/dev/null; do sleep 0.05; done
    done
    [[ -n $cluster_epmd_pid ]] && end_group "$cluster_epmd_pid" 2
    [[ -n $cluster_home ]] && rm -rf "$cluster_home"
    cluster_groups=()
    cluster_load_pid=
    cluster_epmd_pid=
    cluster_home=
    CLUSTER_URLS=
}
