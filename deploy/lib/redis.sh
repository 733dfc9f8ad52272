# deploy/lib/redis.sh: a Redis of our own on a Unix socket.  It carries job
# ids and short-lived sealed frames; the default user is off, and each
# program has a user that can do what it does and nothing else.

# Names of keys: hm:jobs:* streams, hm:s:* and hm:e:* frames and events.
hm_redis_acl() {
    _h() { printf %s "$(cat "$HM_KEYS/redis-$1")" | sha256sum | cut -c1-64; }
    cat <<END
user default off nopass resetkeys resetchannels -@all
user hm_api on #$(_h api) resetkeys ~hm:* resetchannels &hm:* -@all +auth +hello +ping +quit +select +client|setname +client|id +xadd +xread +xrange +xrevrange +xlen +publish +subscribe +psubscribe +unsubscribe +punsubscribe +get +set +incr +incrby +expire +pexpire +pttl +ttl +del +exists +multi +exec +discard
user hm_worker on #$(_h worker) resetkeys ~hm:* resetchannels &hm:* -@all +@stream +auth +hello +ping +quit +select +client|setname +client|id +publish +subscribe +unsubscribe +get +set +incr +incrby +decr +expire +pexpire +pttl +ttl +del +unlink +exists +multi +exec +discard +type
user hm_admin on #$(_h admin) allkeys allchannels +@all
END
}

hm_redis_up() {
    T_DATA=$HM_STATE/redis T_CONF=$HM_CONF
    T_SOCKET=$HM_SOCK/redis/redis.sock
    export T_DATA T_CONF T_SOCKET
    render "$HM_ROOT/deploy/conf/redis.conf" "$HM_CONF/redis.conf"
    hm_redis_acl >"$HM_CONF/redis.acl"
    if hm_is_root; then chgrp $G_ALL "$HM_CONF"/redis.*; fi
    chmod 640 "$HM_CONF"/redis.*

    _sum=$(cat "$HM_CONF/redis.conf" "$HM_CONF/redis.acl" | hm_sum)
    hm_running redis "$_sum" || hm_start redis "$_sum" TERM $U_REDIS \
        /usr/bin/redis-server "$HM_CONF/redis.conf"
    _n=0
    until [ "$(hm_redis ping 2>/dev/null)" = PONG ]; do
        _n=$((_n + 1))
        [ $_n -lt 300 ] || { hm_tail redis; die "Redis is not up"; }
        sleep 0.1
    done
}

hm_redis() {
    REDISCLI_AUTH=$(cat "$HM_KEYS/redis-admin") redis-cli \
        -s "$HM_SOCK/redis/redis.sock" --user hm_admin --no-auth-warning "$@"
}
