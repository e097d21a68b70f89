# A private RabbitMQ node: sourced by tests/run and tests/with-rabbitmq.
#
# The node lives in a temporary directory, listens on loopback only, on ports nobody else holds, under an epmd of its
# own. Other nodes of this machine, the system's included, are neither used nor touched.
#
#   rabbitmq_choose VERSION which RabbitMQ the functions below are about: `system`, the one of this machine's packages
#                           (so it is at first), or one of another Debian release, unpacked into a folder: 4.0, 4.3
#   rabbitmq_program        prints the server's path, or fails when it is not there
#   rabbitmq_install        installs or unpacks it, with Debian's packages
#   rabbitmq_deny_deprecated
#                           nodes that start from now on refuse all that their version calls deprecated (4.3)
#   rabbitmq_start          sets RABBITMQ_URL, and RABBITMQ_CTL: a program that is rabbitmqctl for this node, and knows
#                           two commands more: `kill_node` (SIGKILL) and `start_node`
#                           RABBITMQ_TLS_URL is the same node over TLS, which asks for a client certificate: `client.pem` and
#                           `client.key` in the folder RABBITMQ_TLS, beside `ca.pem` and the stranger's `other-ca.pem`
#   rabbitmq_stop           stops what rabbitmq_start started; safe to call twice

RABBITMQ_URL=
RABBITMQ_CTL=
RABBITMQ_TLS_URL=
RABBITMQ_TLS=
rabbitmq_home=
rabbitmq_epmd_pid=
rabbitmq_locks=()

rabbitmq_scripts=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=debian.bash
source "$rabbitmq_scripts/debian.bash"
# The users, vhosts and permissions it starts with; guest is among them.
rabbitmq_definitions=$(cd "$rabbitmq_scripts/../parity" && pwd)/definitions.json
rabbitmq_folders=$(realpath -m "${CARGO_TARGET_DIR:-$rabbitmq_scripts/../../target}/rabbitmq")

# How long the node may take to answer. 4 s on an idle machine with 2 cores, 15 s while a build runs beside it.
RABBITMQ_START_LIMIT_S=90
RABBITMQ_STOP_LIMIT_S=10

# rabbitmq_choose VERSION
rabbitmq_choose() {
    rabbitmq_denied=()
    case $1 in
    system) rabbitmq_suite= ;;
    4.0) rabbitmq_suite=trixie ;;
    4.3) rabbitmq_suite=sid ;;
    *)
        echo "no RabbitMQ '$1' is known: system, 4.0 or 4.3" >&2
        return 1
        ;;
    esac
    # Its programs see no variable but those that a line names.
    if [[ -z $rabbitmq_suite ]]; then
        rabbitmq_root=
        rabbitmq_enter=(env -i "PATH=$PATH" LANG=C.UTF-8)
    else
        rabbitmq_root=$rabbitmq_folders/$rabbitmq_suite/root
        rabbitmq_enter=("$rabbitmq_folders/$rabbitmq_suite/enter" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8)
    fi
}
rabbitmq_choose system

# Whether this project knows how the version of the node that runs behaves.
rabbitmq_is_known() {
    local version
    version=$("$RABBITMQ_CTL" version) || return 1
    echo "RabbitMQ $version"
    [[ $version =~ ^(3\.10|3\.13|4\.0|4\.3)\. ]]
}

# By name: a node refuses to start with a name that it does not know.
rabbitmq_deny_deprecated() {
    rabbitmq_denied=(amqp_address_v1 amqp_filter_set_bug global_qos queue_master_locator transient_nonexcl_queues)
}

# Whether the node that runs permits nothing that is deprecated.
rabbitmq_denies_deprecated() {
    local permitted
    permitted=$("$RABBITMQ_CTL" list_deprecated_features --silent --formatter csv name state) || return 1
    permitted=$(grep -v ',"\?denied"\?$' <<<"$permitted" | tail -n +2)
    [[ -z $permitted ]] || {
        printf 'permitted although deprecated; add them to rabbitmq_deny_deprecated:\n%s\n' "$permitted" >&2
        return 1
    }
}

rabbitmq_program() {
    # The wrapper in /usr/sbin insists on the user `rabbitmq` and the system's directories; this one does not.
    local program
    for program in "$rabbitmq_root"/usr/lib/rabbitmq/{bin,lib/rabbitmq_server-*/sbin}/rabbitmq-server; do
        if [[ -x $program ]]; then
            echo "${program#"$rabbitmq_root"}"
            return 0
        fi
    done
    return 1
}

# apt_install PACKAGE...
apt_install() {
    if [[ $(id -u) != 0 ]]; then
        echo "missing Debian packages: $*; run 'sudo apt-get install --no-install-recommends $*'," \
            "run this as root, or skip them with --embedded-only" >&2
        return 1
    fi
    if ! command -v apt-get >/dev/null; then
        echo "missing packages: $*; this is not Debian: install them by hand, or skip them with --embedded-only" >&2
        return 1
    fi
    local apt=(timeout -k 10 600 apt-get -o DPkg::Lock::Timeout=120 -o Acquire::Retries=3 -q)
    # A policy-rc.d that denies the start of the system's own node is fine: it is not used.
    DEBIAN_FRONTEND=noninteractive "${apt[@]}" update &&
        DEBIAN_FRONTEND=noninteractive "${apt[@]}" install -y --no-install-recommends "$@"
}

rabbitmq_install() {
    if [[ -n $rabbitmq_suite ]]; then
        debian_unpack "$rabbitmq_suite" "$rabbitmq_folders/$rabbitmq_suite" || return 1
    fi
    rabbitmq_program >/dev/null || apt_install rabbitmq-server
}

# Sets `port` to a free one, and holds a lock on it so that a second run on this machine takes another.
rabbitmq_take_port() {
    local attempt lock
    for attempt in {1..200}; do
        # Below Linux' ephemeral range, so that no outgoing connection takes it meanwhile.
        port=$((20000 + RANDOM % 12000))
        exec {lock}>"/tmp/rpc-tests.port-$port.lock" || continue
        if flock -n "$lock" && ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
            rabbitmq_locks+=("$lock:$port")
            return 0
        fi
        exec {lock}>&-
    done
    echo "no free port among 200 tries" >&2
    return 1
}

rabbitmq_start() {
    local attempt
    for attempt in 1 2 3; do
        if rabbitmq_start_once; then
            return 0
        fi
        rabbitmq_stop
    done
    return 1
}

rabbitmq_start_once() {
    local port amqp_port tls_port dist_port epmd_port
    rabbitmq_program >/dev/null || {
        echo "rabbitmq-server is not installed" >&2
        return 1
    }
    rabbitmq_take_port || return 1
    amqp_port=$port
    rabbitmq_take_port || return 1
    tls_port=$port
    rabbitmq_take_port || return 1
    dist_port=$port
    rabbitmq_take_port || return 1
    epmd_port=$port
    rabbitmq_home=$(mktemp -d /tmp/rpc-tests-rabbitmq.XXXXXX) || return 1
    cp "$rabbitmq_definitions" "$rabbitmq_home/definitions.json" && rabbitmq_write_certificates "$rabbitmq_home/tls" ||
        return 1
    cat >"$rabbitmq_home/rabbitmq.conf" <<-CONF
		listeners.tcp.1 = 127.0.0.1:$amqp_port
		log.console = false
		log.file.level = warning
		load_definitions = $rabbitmq_home/definitions.json
		listeners.ssl.1 = 127.0.0.1:$tls_port
		ssl_options.cacertfile = $rabbitmq_home/tls/ca.pem
		ssl_options.certfile = $rabbitmq_home/tls/node.pem
		ssl_options.keyfile = $rabbitmq_home/tls/node.key
		ssl_options.verify = verify_peer
		ssl_options.fail_if_no_peer_cert = true
	CONF
    ((${#rabbitmq_denied[@]} == 0)) ||
        printf 'deprecated_features.permit.%s = false\n' "${rabbitmq_denied[@]}" >>"$rabbitmq_home/rabbitmq.conf"
    rabbitmq_start_epmd "$rabbitmq_home" "$epmd_port"
    rabbitmq_epmd_pid=$!
    rabbitmq_write_start "$rabbitmq_home/start" "$rabbitmq_home" "$rabbitmq_home" "$epmd_port" "$dist_port" \
        "rpc-tests-$amqp_port@localhost" || return 1
    [[ -z ${rabbitmq_takes_tokens-} ]] || rabbitmq_take_tokens "$rabbitmq_home" || return 1
    "$rabbitmq_home/start"

    local deadline=$((SECONDS + RABBITMQ_START_LIMIT_S))
    until rabbitmq_answers "$amqp_port"; do
        if ! kill -0 "$(<"$rabbitmq_home/group")" 2>/dev/null; then
            echo "RabbitMQ ended while starting; its last words:" >&2
            rabbitmq_last_words
            return 1
        fi
        if ((SECONDS >= deadline)); then
            echo "RabbitMQ does not answer on port $amqp_port after $RABBITMQ_START_LIMIT_S s; its last words:" >&2
            rabbitmq_last_words
            return 1
        fi
        sleep 0.2
    done
    rabbitmq_write_ctl "$rabbitmq_home/rabbitmqctl" "$rabbitmq_home" "$epmd_port" "rpc-tests-$amqp_port@localhost"
    cat >"$rabbitmq_home/ctl" <<-CTL
		#!/bin/bash
		source '$rabbitmq_scripts/rabbitmq.bash'
		case \$1 in
		kill_node)
		    group=\$(<'$rabbitmq_home/group')
		    kill -KILL -- "-\$group"
		    while kill -0 -- "-\$group" 2>/dev/null; do sleep 0.05; done
		    ;;
		start_node)
		    '$rabbitmq_home/start'
		    until rabbitmq_answers $amqp_port; do
		        kill -0 "\$(<'$rabbitmq_home/group')" || exit 1
		        sleep 0.2
		    done
		    ;;
		*) exec '$rabbitmq_home/rabbitmqctl' "\$@" ;;
		esac
	CTL
    chmod +x "$rabbitmq_home/ctl"
    RABBITMQ_URL="amqp://guest:guest@127.0.0.1:$amqp_port"
    RABBITMQ_CTL=$rabbitmq_home/ctl
    RABBITMQ_TLS_URL="amqps://guest:guest@localhost:$tls_port"
    RABBITMQ_TLS=$rabbitmq_home/tls
    RABBITMQ_TOKEN_KEY=$rabbitmq_home/token.key
}

# rabbitmq_write_certificates FOLDER: for a node and a client, and the authorities that signed them and that did not.
rabbitmq_write_certificates() {
    local folder=$1 name
    mkdir -p "$folder" && command -v openssl >/dev/null || apt_install openssl || return 1
    local key=(-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes)
    for name in ca other-ca; do
        openssl req -x509 "${key[@]}" -days 30 -keyout "$folder/$name.key" -out "$folder/$name.pem" -subj "/CN=tests $name" \
            -addext 'keyUsage=critical,keyCertSign' 2>/dev/null || return 1
    done
    for name in node client; do
        printf 'subjectAltName=DNS:localhost,IP:127.0.0.1\nbasicConstraints=CA:false\n' >"$folder/extensions"
        openssl req "${key[@]}" -keyout "$folder/$name.key" -out "$folder/request" -subj "/CN=$name" 2>/dev/null &&
            openssl x509 -req -in "$folder/request" -CA "$folder/ca.pem" -CAkey "$folder/ca.key" -CAcreateserial -days 30 \
                -extfile "$folder/extensions" -out "$folder/$name.pem" 2>/dev/null || return 1
    done
}

# rabbitmq_take_tokens FOLDER: the node there takes tokens, too, signed by the key in FOLDER/token.key.
rabbitmq_take_tokens() {
    openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out "$1/token.key" 2>/dev/null &&
        openssl pkey -in "$1/token.key" -pubout -out "$1/token.pem" || return 1
    printf '[rabbitmq_auth_backend_oauth2].\n' >"$1/plugins"
    cat >>"$1/rabbitmq.conf" <<-CONF
		auth_backends.1 = internal
		auth_backends.2 = rabbit_auth_backend_oauth2
		auth_oauth2.resource_server_id = rabbitmq
		auth_oauth2.default_key = tests
		auth_oauth2.signing_keys.tests = $1/token.pem
	CONF
}

# rabbitmq_start_epmd HOME PORT: in the background, a process group of its own.
rabbitmq_start_epmd() {
    setsid "${rabbitmq_enter[@]}" HOME="$1" ERL_EPMD_ADDRESS=127.0.0.1 epmd -port "$2" </dev/null >"$1/epmd.log" 2>&1 &
}

# rabbitmq_write_start FILE HOME FOLDER EPMD_PORT DIST_PORT NODE: a program that starts the node whose rabbitmq.conf is in
# FOLDER, and writes its process group to FOLDER/group. HOME has the cookie.
rabbitmq_write_start() {
    local file=$1 home=$2 folder=$3 program
    program=$(rabbitmq_program) || return 1
    printf '[].\n' >"$folder/plugins"
    # setsid: a Ctrl-C in the terminal reaches the script that sourced this one, which then stops the node in order.
    cat >"$file" <<-START
		#!/bin/bash
		setsid $(printf '%q ' "${rabbitmq_enter[@]}") \\
		    HOME='$home' \\
		    ERL_EPMD_PORT=$4 \\
		    ERL_EPMD_ADDRESS=127.0.0.1 \\
		    RABBITMQ_CONF_ENV_FILE=/dev/null \\
		    RABBITMQ_CONFIG_FILE='$folder/rabbitmq.conf' \\
		    RABBITMQ_ENABLED_PLUGINS_FILE='$folder/plugins' \\
		    RABBITMQ_MNESIA_BASE='$folder/mnesia' \\
		    RABBITMQ_LOG_BASE='$folder/log' \\
		    RABBITMQ_PID_FILE='$folder/pid' \\
		    RABBITMQ_NODENAME='$6' \\
		    RABBITMQ_DIST_PORT=$5 \\
		    RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS='-kernel inet_dist_use_interface {127,0,0,1}' \\
		    '$program' </dev/null >>'$folder/console.log' 2>&1 &
		echo \$! >'$folder/group'
	START
    chmod +x "$file"
}

# rabbitmq_write_ctl FILE HOME EPMD_PORT NODE: rabbitmqctl with the environment of one node.
rabbitmq_write_ctl() {
    local program
    program=$(rabbitmq_program) || return 1
    cat >"$1" <<-CTL
		#!/bin/bash
		exec $(printf '%q ' "${rabbitmq_enter[@]}") HOME='$2' ERL_EPMD_PORT=$3 RABBITMQ_CONF_ENV_FILE=/dev/null \\
		    '$(dirname "$program")/rabbitmqctl' --node '$4' "\$@"
	CTL
    chmod +x "$1"
}

# A broker that is ready answers the protocol header with connection.start, a method frame (type 1).
rabbitmq_answers() {
    timeout 5 bash -c '
        exec 3<>"/dev/tcp/127.0.0.1/$1" || exit 1
        printf "AMQP\0\0\11\1" >&3
        [[ $(head -c 1 <&3 | od -An -tu1) -eq 1 ]]
    ' answers "$1" 2>/dev/null
}

rabbitmq_last_words() {
    local log
    for log in "$rabbitmq_home"/console.log "$rabbitmq_home"/log/*.log; do
        [[ -s $log ]] && tail -n 20 "$log" | sed 's/^/    /' >&2
    done
    return 0
}

# end_group PID LIMIT_S: TERM, and KILL after the limit, for a process group of our own.
end_group() {
    local pid=$1 deadline=$((SECONDS + $2))
    kill -TERM -- "-$pid" 2>/dev/null || return 0
    while kill -0 -- "-$pid" 2>/dev/null; do
        if ((SECONDS >= deadline)); then
            kill -KILL -- "-$pid" 2>/dev/null
            break
        fi
        sleep 0.1
    done
    wait "$pid" 2>/dev/null
    return 0
}

rabbitmq_stop() {
    [[ -n $rabbitmq_home && -s $rabbitmq_home/group ]] && end_group "$(<"$rabbitmq_home/group")" "$RABBITMQ_STOP_LIMIT_S"
    [[ -n $rabbitmq_epmd_pid ]] && end_group "$rabbitmq_epmd_pid" 2
    [[ -n $rabbitmq_home ]] && rm -rf "$rabbitmq_home"
    local held
    for held in "${rabbitmq_locks[@]}"; do
        local lock=${held%%:*}
        rm -f "/tmp/rpc-tests.port-${held##*:}.lock"
        exec {lock}>&-
    done
    rabbitmq_locks=()
    rabbitmq_epmd_pid=
    rabbitmq_home=
    RABBITMQ_URL=
    RABBITMQ_CTL=
    RABBITMQ_TLS_URL=
    RABBITMQ_TLS=
}
