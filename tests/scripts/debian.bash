# RabbitMQ of another Debian release than this machine's, in a folder: sourced by rabbitmq.bash.
#
#   debian_unpack SUITE FOLDER
#                           downloads rabbitmq-server of that suite with all it needs and unpacks it into FOLDER/root,
#                           unless it is there; nothing is installed
#   FOLDER/enter PROGRAM ARGUMENT...
#                           runs a program in there: chroot, with this machine's /proc, /tmp and random numbers
#
# The packages' signatures are checked against Debian's keyring. Without root, the folder is entered in a user namespace.

DEBIAN_MIRROR=${DEBIAN_MIRROR:-http://deb.debian.org/debian}
DEBIAN_KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg

debian_unpack() {
    local suite=$1 folder=$2 tool
    [[ -e $folder/complete ]] && return 0
    for tool in apt-get dpkg-deb unshare; do
        command -v "$tool" >/dev/null || {
            echo "there is no $tool: RabbitMQ of Debian $suite cannot be unpacked here" >&2
            return 1
        }
    done
    [[ -e $DEBIAN_KEYRING ]] || apt_install debian-archive-keyring || return 1
    rm -rf "$folder"
    mkdir -p "$folder"/{root,state/lists/partial,cache/archives/partial} || return 1
    : >"$folder/state/status"
    echo "deb [signed-by=$DEBIAN_KEYRING] $DEBIAN_MIRROR $suite main" >"$folder/sources.list"
    local apt=(timeout -k 10 600 apt-get -q -o APT::Sandbox::User= -o Acquire::Retries=3 -o Acquire::Languages=none
        -o Dir::Etc::sourcelist="$folder/sources.list" -o Dir::Etc::sourceparts=/dev/null
        -o Dir::Etc::preferencesparts=/dev/null -o Dir::State="$folder/state" -o Dir::State::status="$folder/state/status"
        -o Dir::Cache="$folder/cache")
    # No maintainer's script runs, so what those of RabbitMQ and Erlang call comes along by name.
    "${apt[@]}" update >"$folder/log" 2>&1 &&
        "${apt[@]}" install -y --download-only --no-install-recommends rabbitmq-server \
            bash coreutils dash sed grep procps util-linux hostname libc-bin gawk >>"$folder/log" 2>&1 || {
        tail -n 20 "$folder/log" >&2
        return 1
    }
    local package
    for package in "$folder"/cache/archives/*.deb; do
        dpkg-deb -x "$package" "$folder/root" || return 1
    done
    debian_complete "$folder" || return 1
    rm -rf "$folder"/{state,cache}
    : >"$folder/complete"
}

# The work of the packages' scripts, as far as RabbitMQ needs it.
debian_complete() {
    local folder=$1 root=$1/root name
    for name in bin sbin lib lib64; do
        [[ -e $root/$name ]] || ln -s "usr/$name" "$root/$name" || return 1
    done
    ln -sf bash "$root/usr/bin/sh" && ln -sf gawk "$root/usr/bin/awk" && mkdir -p "$root"/{dev,proc,tmp,etc} || return 1
    for name in "${debian_devices[@]}"; do
        : >"$root/dev/$name" || return 1
    done
    printf '127.0.0.1 localhost\n' >"$root/etc/hosts"
    printf 'root:x:0:0:root:/:/bin/sh\n' >"$root/etc/passwd"
    # The mounts are seen by this program alone and end with it.
    cat >"$folder/enter" <<-ENTER || return 1
		#!/bin/bash
		as_root=()
		((\$(id -u) == 0)) || as_root=(--user --map-root-user)
		exec unshare --mount "\${as_root[@]}" bash -c '
		    root=\$0
		    mount --rbind /proc "\$root/proc" && mount --bind /tmp "\$root/tmp" || exit 1
		    for name in ${debian_devices[*]}; do mount --bind "/dev/\$name" "\$root/dev/\$name" || exit 1; done
		    cd / && exec chroot "\$root" "\$@"
		' '$root' "\$@"
	ENTER
    chmod +x "$folder/enter"
}

debian_devices=(null zero random urandom)
