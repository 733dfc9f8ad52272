/*
 * ngx_hm_metrics: counters in shared memory, a slot for each worker so that
 * no two processes write one cache line.  The names are those of the user's
 * document; labels are the route's template, never an address.
 */

#include "ngx_hm.h"


#define NGX_HM_SLOTS      16
#define NGX_HM_BUCKETS    12
#define NGX_HM_ROUTES     96
#define NGX_HM_LAGS       9


typedef struct {
    uint64_t      count[5];              /* by hundreds of the status */
    uint64_t      usec;
    uint64_t      bucket[NGX_HM_BUCKETS];
} ngx_hm_route_metric_t;


/* Two of them: the lag of the event loop, and what of it is its own. */
typedef struct {
    uint64_t      count;
    uint64_t      usec;
    uint64_t      bucket[NGX_HM_LAGS];
} ngx_hm_lag_metric_t;


typedef struct {
    uint64_t                 counter[NGX_HM_M_LAST];
    ngx_hm_lag_metric_t      lag[2];
    ngx_hm_route_metric_t    route[NGX_HM_ROUTES];
    u_char                   pad[64];
} ngx_hm_slot_t;


static ngx_hm_slot_t  *ngx_hm_slots;


static const uint32_t  ngx_hm_bounds[NGX_HM_BUCKETS] = {
    500, 1000, 2500, 5000, 10000, 25000, 50000, 100000, 250000, 500000,
    1000000, 2500000
};


static const uint32_t  ngx_hm_lag_bounds[NGX_HM_LAGS] = {
    500, 1000, 2500, 5000, 10000, 25000, 50000, 100000, 1000000
};


static const struct {
    const char  *name;
    const char  *help;
} ngx_hm_counters[NGX_HM_M_LAST] = {
    [NGX_HM_M_REQUESTS] = { "healthmate_requests_total",
        "Requests that passed through the module" },
    [NGX_HM_M_POINTS] = { "health_data_points_total",
        "Health data records stored" },
    [NGX_HM_M_LEAKS] = { "healthmate_foreign_rows_total",
        "Rows refused because they were not the subject's" },
    [NGX_HM_M_AUDIT_BATCHES] = { "healthmate_audit_batches_total",
        "Group commits of read audits" },
    [NGX_HM_M_AUDIT_ROWS] = { "healthmate_audit_rows_total",
        "Read audit records sent" },
    [NGX_HM_M_AUDIT_FAILED] = { "healthmate_audit_failed_total",
        "Answers withheld because their audit record was not accepted" },
    [NGX_HM_M_PG_BATCHES] = { "healthmate_pg_batches_total",
        "Batches sent to PostgreSQL" },
    [NGX_HM_M_PG_SEGMENTS] = { "healthmate_pg_segments_total",
        "Statements sent to PostgreSQL" },
    [NGX_HM_M_PG_RESENT] = { "healthmate_pg_resent_total",
        "Statements sent again alone after a neighbour's error" },
    [NGX_HM_M_PG_LOST] = { "healthmate_pg_lost_total",
        "Connections to PostgreSQL lost or refused" },
    [NGX_HM_M_SEAL_FAILED] = { "healthmate_seal_failed_total",
        "Values that could not be sealed" },
    [NGX_HM_M_OPEN_FAILED] = { "healthmate_open_failed_total",
        "Sealed values that do not belong where they stood" },
    [NGX_HM_M_TOKEN_HITS] = { "healthmate_token_cache_hits_total",
        "Tokens known already" },
    [NGX_HM_M_TOKEN_MISSES] = { "healthmate_token_cache_misses_total",
        "Tokens verified" },
    [NGX_HM_M_KEY_LOADS] = { "healthmate_key_loads_total",
        "Keys of people loaded and unwrapped" },
    [NGX_HM_M_RINGS] = { "healthmate_doorbell_rings_total",
        "Job ids sent to Redis" },
    [NGX_HM_M_RING_LOST] = { "healthmate_doorbell_lost_total",
        "Job ids Redis did not take; the relay rings again" },
    [NGX_HM_M_OVERLOADED] = { "healthmate_overloaded_total",
        "Work refused because a queue was full" },
    [NGX_HM_M_ABORTED] = { "healthmate_client_aborted_total",
        "Clients that left before their answer" },
    [NGX_HM_M_FEED_EVENTS] = { "healthmate_feed_events_total",
        "Revocations and changes of rights and keys heard of" },
    [NGX_HM_M_FEED_ASKED] = { "healthmate_feed_asked_total",
        "Requests whose session the database was asked about" },
    [NGX_HM_M_FEED_REFUSED] = { "healthmate_feed_refused_total",
        "Requests refused because of a revocation" },
    [NGX_HM_M_FEED_TAKEN] = { "healthmate_feed_taken_total",
        "Times a worker began to listen to the feed" },
    [NGX_HM_M_PASSWORDS] = { "healthmate_passwords_total",
        "Passwords hashed or compared with a hash" },
    [NGX_HM_M_LIMITED] = { "healthmate_rate_limited_total",
        "Requests refused because their rate class was used up" },
    [NGX_HM_M_TRIES_REFUSED] = { "healthmate_tries_refused_total",
        "Tries at a password refused before it was compared" },
    [NGX_HM_M_TRIES_FULL] = { "healthmate_tries_full_total",
        "Tries that found no room to be counted; healthmate_zone is small" },
    [NGX_HM_M_CLUSTER_COUNTS] = { "healthmate_cluster_counts_total",
        "Counts heard from Redis" },
    [NGX_HM_M_CLUSTER_LOST] = { "healthmate_cluster_lost_total",
        "Counts that Redis did not take; they stand on this node alone" }
};


static ngx_hm_slot_t *ngx_hm_slot(void);
static void ngx_hm_metrics_routes(hm_buf_t *b);
static void ngx_hm_metrics_lags(hm_buf_t *b);
static uint64_t ngx_hm_sum(size_t offset);


size_t
ngx_hm_metrics_size(void)
{
    return NGX_HM_SLOTS * sizeof(ngx_hm_slot_t);
}


void
ngx_hm_metrics_attach(void *shared)
{
    ngx_hm_slots = shared;
}


static ngx_hm_slot_t *
ngx_hm_slot(void)
{
    return &ngx_hm_slots[ngx_hm_worker.slot % NGX_HM_SLOTS];
}


void
ngx_hm_count(ngx_hm_metric_t m, ngx_uint_t n)
{
    if (ngx_hm_slots != NULL) {
        ngx_hm_slot()->counter[m] += n;
    }
}


void
ngx_hm_count_request(ngx_hm_ctx_t *hm)
{
    int64_t                 usec;
    ngx_uint_t              i, n;
    ngx_hm_route_metric_t  *rm;

    ngx_hm_count(NGX_HM_M_REQUESTS, 1);

    if (hm->route == NULL || ngx_hm_slots == NULL) {
        return;
    }

    n = (ngx_uint_t) (hm->route - ngx_hm_routes);
    rm = &ngx_hm_slot()->route[ngx_min(n, NGX_HM_ROUTES - 1)];

    usec = hm_now() - hm->now;
    usec = usec < 0 ? 0 : usec;

    i = hm->status / 100;
    rm->count[i >= 1 && i <= 5 ? i - 1 : 4]++;
    rm->usec += (uint64_t) usec;

    for (i = 0; i < NGX_HM_BUCKETS; i++) {
        if (usec <= ngx_hm_bounds[i]) {
            rm->bucket[i]++;
            break;
        }
    }
}


void
ngx_hm_metrics_lag(uint64_t usec, uint64_t own)
{
    uint64_t              v;
    ngx_uint_t            i, k;
    ngx_hm_lag_metric_t  *lag;

    if (ngx_hm_slots == NULL) {
        return;
    }

    for (k = 0; k < 2; k++) {
        lag = &ngx_hm_slot()->lag[k];
        v = k == 0 ? usec : own;

        lag->count++;
        lag->usec += v;

        for (i = 0; i < NGX_HM_LAGS; i++) {
            if (v <= ngx_hm_lag_bounds[i]) {
                lag->bucket[i]++;
                break;
            }
        }
    }
}


static uint64_t
ngx_hm_sum(size_t offset)
{
    uint64_t    n;
    ngx_uint_t  i;

    n = 0;

    for (i = 0; i < NGX_HM_SLOTS; i++) {
        n += *(uint64_t *) ((u_char *) &ngx_hm_slots[i] + offset);
    }

    return n;
}


void
ngx_hm_metrics_write(ngx_hm_ctx_t *hm, hm_buf_t *b)
{
    ngx_uint_t          i;
    ngx_hm_pg_state_t   pg;

    for (i = 0; i < NGX_HM_M_LAST; i++) {
        hm_buf_printf(b, "# HELP %s %s.\n# TYPE %s counter\n%s %lu\n",
                      ngx_hm_counters[i].name, ngx_hm_counters[i].help,
                      ngx_hm_counters[i].name, ngx_hm_counters[i].name,
                      (unsigned long)
                      ngx_hm_sum(offsetof(ngx_hm_slot_t, counter)
                                 + i * sizeof(uint64_t)));
    }

    ngx_hm_metrics_routes(b);
    ngx_hm_feed_metrics(b);
    ngx_hm_metrics_lags(b);

    ngx_hm_pg_state(&pg);

    hm_buf_printf(b, "# HELP healthmate_pg_connections Connections of the "
                  "answering worker that are ready.\n"
                  "# TYPE healthmate_pg_connections gauge\n"
                  "healthmate_pg_connections %lu\n",
                  (unsigned long) pg.up);
    hm_buf_printf(b, "# HELP healthmate_pg_queue Statements of the "
                  "answering worker that wait to be sent.\n"
                  "# TYPE healthmate_pg_queue gauge\n"
                  "healthmate_pg_queue %lu\n", (unsigned long) pg.queued);
    hm_buf_printf(b, "# HELP healthmate_build_info The version.\n"
                  "# TYPE healthmate_build_info gauge\n"
                  "healthmate_build_info{version=\"%s\"} 1\n",
                  NGX_HM_VERSION);
}


static void
ngx_hm_metrics_routes(hm_buf_t *b)
{
    size_t       base;
    uint64_t     n, sum;
    ngx_uint_t   i, k;
    const char  *method;

    hm_buf_lit(b, "# HELP api_requests_total Requests by route and status.\n"
                  "# TYPE api_requests_total counter\n");

    for (i = 0; i < ngx_hm_nroutes && i < NGX_HM_ROUTES; i++) {
        base = offsetof(ngx_hm_slot_t, route)
               + i * sizeof(ngx_hm_route_metric_t);
        method = ngx_hm_routes[i].method == NGX_HTTP_GET ? "GET"
                 : ngx_hm_routes[i].method == NGX_HTTP_POST ? "POST"
                 : ngx_hm_routes[i].method == NGX_HTTP_PUT ? "PUT"
                 : ngx_hm_routes[i].method == NGX_HTTP_PATCH ? "PATCH"
                 : "DELETE";

        for (k = 0; k < 5; k++) {
            n = ngx_hm_sum(base + offsetof(ngx_hm_route_metric_t, count)
                           + k * sizeof(uint64_t));

            if (n != 0) {
                hm_buf_printf(b, "api_requests_total{method=\"%s\","
                              "route=\"%s\",status=\"%luxx\"} %lu\n",
                              method, ngx_hm_routes[i].path,
                              (unsigned long) k + 1, (unsigned long) n);
            }
        }
    }

    hm_buf_lit(b, "# HELP api_request_duration_seconds Time from the "
                  "request's arrival to its answer.\n"
                  "# TYPE api_request_duration_seconds histogram\n");

    for (k = 0, sum = 0; k <= NGX_HM_BUCKETS; k++) {
        for (i = 0; i < ngx_hm_nroutes && i < NGX_HM_ROUTES; i++) {
            base = offsetof(ngx_hm_slot_t, route)
                   + i * sizeof(ngx_hm_route_metric_t);

            if (k < NGX_HM_BUCKETS) {
                sum += ngx_hm_sum(base
                              + offsetof(ngx_hm_route_metric_t, bucket)
                              + k * sizeof(uint64_t));
            }
        }

        if (k < NGX_HM_BUCKETS) {
            hm_buf_printf(b, "api_request_duration_seconds_bucket"
                          "{le=\"%g\"} %lu\n", ngx_hm_bounds[k] / 1e6,
                          (unsigned long) sum);
        }
    }

    for (i = 0, n = 0, sum = 0; i < ngx_hm_nroutes && i < NGX_HM_ROUTES;
         i++)
    {
        base = offsetof(ngx_hm_slot_t, route)
               + i * sizeof(ngx_hm_route_metric_t);
        sum += ngx_hm_sum(base + offsetof(ngx_hm_route_metric_t, usec));

        for (k = 0; k < 5; k++) {
            n += ngx_hm_sum(base + offsetof(ngx_hm_route_metric_t, count)
                            + k * sizeof(uint64_t));
        }
    }

    hm_buf_printf(b, "api_request_duration_seconds_bucket{le=\"+Inf\"} %lu\n"
                  "api_request_duration_seconds_sum %.6f\n"
                  "api_request_duration_seconds_count %lu\n",
                  (unsigned long) n, (double) sum / 1e6, (unsigned long) n);
}


static void
ngx_hm_metrics_lags(hm_buf_t *b)
{
    size_t       base;
    uint64_t     sum;
    ngx_uint_t   i, k;
    const char  *name;

    static const char  *const  names[] = {
        "healthmate_event_loop_lag_seconds",
        "healthmate_event_loop_stall_seconds"
    };

    static const char  *const  help[] = {
        "How late a timer of the event loop ran",
        "The same without waiting for a processor: above 0.01 is a fault"
    };

    for (k = 0; k < 2; k++) {
        base = offsetof(ngx_hm_slot_t, lag) + k * sizeof(ngx_hm_lag_metric_t);
        name = names[k];
        sum = 0;

        hm_buf_printf(b, "# HELP %s %s.\n# TYPE %s histogram\n", name,
                      help[k], name);

        for (i = 0; i < NGX_HM_LAGS; i++) {
            sum += ngx_hm_sum(base + offsetof(ngx_hm_lag_metric_t, bucket)
                              + i * sizeof(uint64_t));
            hm_buf_printf(b, "%s_bucket{le=\"%g\"} %lu\n", name,
                          ngx_hm_lag_bounds[i] / 1e6, (unsigned long) sum);
        }

        hm_buf_printf(b, "%s_bucket{le=\"+Inf\"} %lu\n", name,
                      (unsigned long) ngx_hm_sum(base
                                + offsetof(ngx_hm_lag_metric_t, count)));
        hm_buf_printf(b, "%s_sum %.6f\n", name,
                      (double) ngx_hm_sum(base
                                + offsetof(ngx_hm_lag_metric_t, usec)) / 1e6);
        hm_buf_printf(b, "%s_count %lu\n", name,
                      (unsigned long) ngx_hm_sum(base
                                + offsetof(ngx_hm_lag_metric_t, count)));
    }
}
