# deploy/lib/postgres.sh: a PostgreSQL of our own, on a Unix socket only,
# where the operating system says who is who (peer).

hm_pg_bin() {
    HM_PG_BIN=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V \
        | tail -n 1)
    [ -x "$HM_PG_BIN/postgres" ] || die "PostgreSQL is not installed"
}

hm_psql() {    # as the cluster's superuser
    PGOPTIONS='-c client_min_messages=warning' \
        psql -X -q -A -t -v ON_ERROR_STOP=1 -h "$HM_SOCK/pg" -p 5432 \
        -U postgres "$@"
}

# Who may be whom.  As root each service is one role; without root the one
# user is every role.
hm_pg_ident() {
    _me=$(id -un)
    if hm_is_root; then
        printf 'hm %s %s\n' root hm_admin root hm_cli root postgres \
            $U_PG postgres $U_NGINX hm_api $U_WORKER hm_worker
    else
        for _r in postgres hm_admin hm_cli hm_api hm_worker; do
            printf 'hm %s %s\n' "$_me" $_r
        done
    fi
}

hm_pg_config() {
    T_DATA=$HM_STATE/pg T_CONF=$HM_CONF T_SOCKET=$HM_SOCK/pg
    # In a chroot or a container /dev/shm may be root's alone.
    T_SHM=posix
    as $U_PG test -w /dev/shm || T_SHM=sysv
    T_BUFFERS=$(awk '/^MemTotal:/ { m = int($2 / 8 / 1024) }
        END { print (m < 128 ? 128 : m > 1024 ? 1024 : m) "MB" }' \
        /proc/meminfo)
    export T_DATA T_CONF T_SOCKET T_SHM T_BUFFERS
    render "$HM_ROOT/deploy/conf/postgresql.conf" "$HM_CONF/postgresql.conf"
    render "$HM_ROOT/deploy/conf/pg_hba.conf" "$HM_CONF/pg_hba.conf"
    hm_pg_ident >"$HM_CONF/pg_ident.conf"
    if hm_is_root; then
        chgrp $G_ALL "$HM_CONF"/postgresql.conf "$HM_CONF"/pg_*.conf
    fi
    chmod 640 "$HM_CONF"/postgresql.conf "$HM_CONF"/pg_*.conf
}

hm_pg_up() {
    hm_pg_bin
    if [ ! -s "$HM_STATE/pg/PG_VERSION" ]; then
        # An initdb that was cut off leaves no PG_VERSION worth keeping.
        find "$HM_STATE/pg" -mindepth 1 -delete
        (cd / && as $U_PG "$HM_PG_BIN/initdb" -D "$HM_STATE/pg" -U postgres \
            --auth=peer --encoding=UTF8 --locale=C.UTF-8 --data-checksums \
            --no-instructions) >>"$HM_LOGS/initdb.log" 2>&1 9>&- \
            || { hm_tail initdb; die "initdb failed"; }
    fi
    hm_pg_config

    _sum=$(cat "$HM_CONF/postgresql.conf" "$HM_CONF/pg_hba.conf" \
        "$HM_CONF/pg_ident.conf" | hm_sum "$HM_PG_BIN" "$HM_STATE")
    hm_running postgres "$_sum" || hm_start postgres "$_sum" INT $U_PG \
        "$HM_PG_BIN/postgres" -D "$HM_STATE/pg" \
        -c "config_file=$HM_CONF/postgresql.conf"

    _n=0
    until hm_psql -d postgres -c 'select 1' >/dev/null 2>&1; do
        _n=$((_n + 1))
        [ $_n -lt 300 ] || { hm_tail postgres; die "PostgreSQL is not up"; }
        sleep 0.2
    done
    [ "$(hm_psql -d postgres -c \
        "select 1 from pg_database where datname = 'healthmate'")" = 1 ] \
        || hm_psql -d postgres -c 'create database healthmate'
}

# Migrations run as the superuser over peer: the first one makes the roles.
hm_migrate() {
    (
        cd "$HM_ROOT/sql" || exit 1
        PGHOST=$HM_SOCK/pg PGPORT=5432 PGUSER=postgres
        SQITCH_FULLNAME='healthmate deploy' SQITCH_EMAIL=deploy@localhost
        TZ=UTC
        export PGHOST PGPORT PGUSER SQITCH_FULLNAME SQITCH_EMAIL TZ
        sqitch deploy --target db:pg:healthmate 9>&-
    ) </dev/null >"$HM_LOGS/migrate.log" 2>&1 \
        || { hm_tail migrate; die "the migrations failed"; }
    # The policies read it from the database, the module from its directive.
    hm_psql -d healthmate -v phi="$HM_ADMIN_PHI" -v care="$HM_CARE_ASSIGN" \
        >/dev/null <<'END' \
        || die "cannot write hm_settings"
insert into hm_settings (name, value)
    values ('admin_phi', :'phi'), ('care_assign', :'care')
    on conflict (name) do update set value = excluded.value
    where hm_settings.value <> excluded.value;
END
}
