# deploy/lib/state.sh: the state folder, its users, keys and certificate.
#
# Who may reach what (root's stack):
#   HM_STATE, conf/      root:healthmate 0750   all four services may pass
#   keys/                root:hm-keys    0750   nginx and worker, not the
#                                               database and not Redis
#   pg/ redis/           their service   0700
#   HM_SOCK/{pg,redis}   service:healthmate 2750, sockets 0770
# Without root it is all the caller's, 0700.

hm_make_users() {
    hm_users
    hm_is_root || return 0
    for _g in healthmate hm-keys; do
        getent group $_g >/dev/null || groupadd --system $_g
    done
    for _u in hm-pg hm-redis hm-nginx hm-worker; do
        getent group $_u >/dev/null || groupadd --system $_u
        getent passwd $_u >/dev/null || useradd --system --gid $_u \
            --no-create-home --home-dir /nonexistent \
            --shell /usr/sbin/nologin $_u
        id -nG $_u | tr ' ' '\n' | grep -qx healthmate \
            || usermod -a -G healthmate $_u
    done
    for _u in hm-nginx hm-worker; do
        id -nG $_u | tr ' ' '\n' | grep -qx hm-keys \
            || usermod -a -G hm-keys $_u
    done
}

# Can all service users come as far as this folder?
hm_reachable() {
    for _u in $U_PG $U_REDIS $U_NGINX $U_WORKER; do
        as "$_u" test -x "$1" 2>/dev/null || return 1
    done
}

hm_make_state() {
    if [ -L "$HM_HOME" ]; then
        mkdir -p "$HM_STATE"
    else
        mkdir -p "$HM_HOME"
        if hm_is_root; then
            chgrp $G_ALL "$HM_HOME" && chmod 750 "$HM_HOME"
        else
            chmod 700 "$HM_HOME"
        fi
        if hm_odd "$HM_HOME" || ! hm_reachable "$HM_HOME"; then
            hm_move_state
        fi
    fi
    hm_place
    if hm_is_root; then
        chgrp $G_ALL "$HM_STATE" && chmod 750 "$HM_STATE"
    fi

    for _d in pids logs conf bin nginx; do
        hm_folder "$HM_STATE/$_d" root $G_ALL 750
    done
    hm_folder "$HM_KEYS" root $G_KEYS 750
    hm_folder "$HM_STATE/tls" root root 700
    hm_folder "$HM_STATE/pg" $U_PG $U_PG 700
    hm_folder "$HM_STATE/redis" $U_REDIS $U_REDIS 700
    hm_folder "$HM_STATE/worker" $U_WORKER $U_WORKER 700

    # The keeper outlives this tree's next edit.
    install -m 755 "$HM_ROOT/deploy/lib/keeper" "$HM_STATE/bin/keeper.new"
    mv -f "$HM_STATE/bin/keeper.new" "$HM_STATE/bin/keeper"
    hm_make_sockets
}

# HOME lies under a folder that is closed to the services (a clone in
# /root), or its name is odd: the state moves, HOME points to it.
hm_move_state() {
    hm_is_root || die "HEALTHMATE_HOME=$HM_HOME: use a plain path (letters," \
        "digits and ._/+@=,-)"
    _to=/var/lib/healthmate/$HM_KEY
    rmdir "$HM_HOME" 2>/dev/null || die "$HM_HOME is closed to the service" \
        "users and not empty; empty it or choose another HEALTHMATE_HOME"
    mkdir -p "$_to"
    chmod 755 /var/lib/healthmate
    ln -s "$_to" "$HM_HOME"
    say "$HM_HOME cannot be reached by the service users: the state is in" \
        "$_to"
}

hm_folder() {    # path owner group mode
    mkdir -p "$1"
    if hm_is_root; then
        chown "$2:$3" "$1"
        chmod "$4" "$1"
    else
        chmod 700 "$1"
    fi
}

# /run is emptied at boot, so this runs at each start.
hm_make_sockets() {
    if hm_is_root; then chmod 755 /run/healthmate; fi
    hm_folder "$HM_SOCK" root $G_ALL 750
    # setgid: what is made in there belongs to the group.
    hm_folder "$HM_SOCK/pg" $U_PG $G_ALL 2750
    hm_folder "$HM_SOCK/redis" $U_REDIS $G_ALL 2750
    _s=$HM_SOCK/pg/.s.PGSQL.5432.lock
    [ ${#_s} -lt 107 ] || die "socket paths would be too long: $HM_SOCK"
}

hm_random() { od -An -v -tx1 -N "$1" /dev/urandom | tr -d ' \n'; }

hm_secret() {    # file, owner:group, mode; content on standard input
    [ -s "$1" ] && { cat >/dev/null; return 0; }
    (umask 077; cat >"$1.new")
    if hm_is_root; then chown "$2" "$1.new"; fi
    chmod "$3" "$1.new"
    mv "$1.new" "$1"
}

# The KEK lies beside, never inside, the data folder (HM_STATE/pg).
hm_make_keys() {
    printf '1 %s\n' "$(hm_random 32)" | hm_secret "$HM_KEYS/kek" root:$G_ALL 440
    hm_random 32 | hm_secret "$HM_KEYS/jwt-1" root:$G_ALL 440
    case $HM_JWT in
    ES256)
        openssl genpkey -quiet -algorithm EC \
            -pkeyopt ec_paramgen_curve:P-256 \
            | hm_secret "$HM_KEYS/jwt-es256.pem" root:$G_ALL 440
        ;;
    EdDSA)
        openssl genpkey -quiet -algorithm ED25519 \
            | hm_secret "$HM_KEYS/jwt-eddsa.pem" root:$G_ALL 440
        ;;
    esac
    for _r in api worker; do
        hm_random 24 | hm_secret "$HM_KEYS/redis-$_r" root:$G_ALL 440
    done
    hm_random 24 | hm_secret "$HM_KEYS/redis-admin" root:root 400
}

hm_make_tls() {
    _t=$HM_STATE/tls
    if [ -s "$_t/cert.pem" ] && openssl x509 -checkend 604800 -noout \
        -in "$_t/cert.pem" >/dev/null 2>&1
    then
        return 0
    fi
    (
        umask 077
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 \
            -nodes -days 397 -sha256 -subj /CN=localhost \
            -addext 'subjectAltName=DNS:localhost,IP:127.0.0.1,IP:::1' \
            -addext 'keyUsage=critical,digitalSignature' \
            -addext 'extendedKeyUsage=serverAuth' \
            -keyout "$_t/key.pem.new" -out "$_t/cert.pem.new" 2>/dev/null
    ) || die "openssl cannot make a certificate"
    mv "$_t/key.pem.new" "$_t/key.pem"
    mv "$_t/cert.pem.new" "$_t/cert.pem"
    chmod 644 "$_t/cert.pem"
    # For clients that want to trust it.
    install -m 644 "$_t/cert.pem" "$HM_STATE/cert.pem"
}

hm_make_env() {
    _db="host=$HM_SOCK/pg dbname=healthmate"
    _redis=$HM_SOCK/redis/redis.sock
    _q="host=$(printf %s "$HM_SOCK/pg" | sed 's,/,%2F,g')"
    (
        umask 077
        cat >"$HM_STATE/env.new" <<END
# Made by deploy/up; source it to talk to this stack.
export HEALTHMATE_HOME='$HM_HOME'
export HEALTHMATE_STATE='$HM_STATE'
export HEALTHMATE_HTTP_PORT='$HM_HTTP_PORT'
export HEALTHMATE_HTTPS_PORT='$HM_HTTPS_PORT'
export HEALTHMATE_URL='$(hm_url)'
export HEALTHMATE_CA='$HM_STATE/cert.pem'
export HEALTHMATE_PIDS='$HM_PIDS'
export HEALTHMATE_LOGS='$HM_LOGS'
export HEALTHMATE_ENVIRONMENT='$HM_ENVIRONMENT'
export HEALTHMATE_KEK_FILE='$HM_KEYS/kek'
export HEALTHMATE_ADMIN_PHI='$HM_ADMIN_PHI'
export HEALTHMATE_DATABASE='$_db user=hm_cli'
export DATABASE_URL='postgresql:///healthmate?$_q&user=hm_admin'
export PGHOST='$HM_SOCK/pg'
export PGPORT='5432'
export PGUSER='hm_admin'
export PGDATABASE='healthmate'
export REDIS_URL='unix://hm_admin:$(cat "$HM_KEYS/redis-admin")@$_redis'
END
    )
    mv -f "$HM_STATE/env.new" "$HM_STATE/env"
}

# Where /ready is: in production not for everyone.
hm_operators_url() {
    if hm_is_production; then
        printf 'https://localhost:%s' "$HM_OPERATORS_PORT"
    else
        hm_url
    fi
}

hm_url() {
    if [ "$HM_HTTP_PORT" = off ]; then
        printf 'https://localhost:%s' "$HM_HTTPS_PORT"
    else
        printf 'http://127.0.0.1:%s' "$HM_HTTP_PORT"
    fi
}
