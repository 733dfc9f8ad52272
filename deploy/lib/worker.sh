# deploy/lib/worker.sh: the worker pool, in an environment that names all it
# may know and nothing of the caller's.  Mail falls into worker/outbox of the
# state folder; a password for SMTP comes as a file only, since what stands on
# a command line can be read by everyone.

hm_worker_up() {
    _bin=$HM_BUILD/healthmate-worker
    _to=$HM_STATE/bin/healthmate-worker
    cmp -s "$_bin" "$_to" || {
        install -m 755 "$_bin" "$_to.new"
        mv -f "$_to.new" "$_to"
    }
    _db="host=$HM_SOCK/pg port=5432 dbname=healthmate user=hm_worker"
    _redis="unix://$HM_SOCK/redis/redis.sock?user=hm_worker"
    _redis="$_redis&password_file=$HM_KEYS/redis-worker"
    set -- /usr/bin/env -i PATH=/usr/bin:/bin LC_ALL=C.UTF-8 TZ=UTC \
        ${ASAN_OPTIONS:+"ASAN_OPTIONS=$ASAN_OPTIONS"} \
        "DATABASE_URL=$_db" "HEALTHMATE_DATABASE=$_db" "REDIS_URL=$_redis" \
        "HEALTHMATE_KEK_FILE=$HM_KEYS/kek" \
        "HEALTHMATE_WORKERS=$HM_WORKERS" \
        "HEALTHMATE_ENVIRONMENT=$HM_ENVIRONMENT" \
        "HEALTHMATE_ADMIN_PHI=$HM_ADMIN_PHI" \
        "HEALTHMATE_DEMO=$HM_DEMO" "HEALTHMATE_MAIL=$HM_MAIL" \
        "HEALTHMATE_REGISTER=$HM_REGISTER" \
        "HEALTHMATE_PUBLIC_URL=${HM_PUBLIC_URL:-$(hm_url)}" \
        ${SMTP_HOST:+"SMTP_HOST=$SMTP_HOST"} \
        ${SMTP_PORT:+"SMTP_PORT=$SMTP_PORT"} \
        ${SMTP_TLS:+"SMTP_TLS=$SMTP_TLS"} \
        ${SMTP_USER:+"SMTP_USER=$SMTP_USER"} \
        ${SMTP_PASSWORD_FILE:+"SMTP_PASSWORD_FILE=$SMTP_PASSWORD_FILE"} \
        ${SMTP_FROM:+"SMTP_FROM=$SMTP_FROM"} \
        ${SMTP_CA_FILE:+"SMTP_CA_FILE=$SMTP_CA_FILE"} \
        "HEALTHMATE_LIMITS=$HM_LIMITS" "HEALTHMATE_AUDIT=$HM_AUDIT" \
        "HEALTHMATE_FINGERPRINT=$HM_FINGERPRINT" \
        "HEALTHMATE_HTTP_PORT=$HM_HTTP_PORT" "HEALTHMATE_BIND=$HM_BIND" \
        "HEALTHMATE_HOME=$HM_STATE/worker" "$_to"
    _sum=$(cat "$_to" "$HM_KEYS/kek" "$HM_KEYS/redis-worker" | hm_sum "$@")
    hm_running worker "$_sum" \
        || hm_start worker "$_sum" TERM $U_WORKER "$@"
}
