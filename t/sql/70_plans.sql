-- The hot statements' plans, as hm_api with generic plans: the right index,
-- no sort, and no question about rows that are one's own.
\ir lib/setup.psql
SELECT plan(12);

INSERT INTO health_data (id, user_id, dek_version, data_type, value,
                         "timestamp", source, dedup_key)
SELECT gen_random_uuid(), u, 1, 'heart_rate', '\x04',
       now() - n * interval '1 hour', 'manual', decode(md5(u || ' ' || n), 'hex')
  FROM (SELECT gen_random_uuid() AS u FROM generate_series(1, 100)
        UNION ALL VALUES (:ann::uuid)) p, generate_series(1, 200) n;
ANALYZE health_data;

SET LOCAL plan_cache_mode = force_generic_plan;
SET LOCAL track_functions = 'all';

CREATE FUNCTION tap.hm_plan(stmt text, types text, args text) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
    me    text := session_user;
    line  text;
    ret   text := '';
BEGIN
    PERFORM set_config('hm.actor', 'a0000000-0000-7000-8000-000000000001',
                       true);
    PERFORM set_config('session_authorization', 'hm_api', true);
    EXECUTE format('PREPARE probe (%s) AS %s', types, stmt);
    FOR line IN EXECUTE 'EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) '
        'EXECUTE probe (' || args || ')'
    LOOP
        ret := ret || line || E'\n';
    END LOOP;
    DEALLOCATE probe;
    PERFORM set_config('session_authorization', me, true);
    PERFORM set_config('hm.actor', '', true);
    RETURN ret;
END
$$;

CREATE TEMP TABLE p AS SELECT
    tap.hm_plan(format('SELECT * FROM %s WHERE user_id = $1 AND id = $2',
        :'leaf_ann'), 'uuid, uuid', quote_literal(:ann) || ', '
        '''b0000000-0000-7000-8000-000000000001''') AS one,
    tap.hm_plan(format('SELECT * FROM %s WHERE user_id = $1 '
        'ORDER BY "timestamp" DESC, id DESC LIMIT $2', :'leaf_ann'),
        'uuid, int', quote_literal(:ann) || ', 20') AS list,
    tap.hm_plan(format('SELECT * FROM %s WHERE user_id = $1 '
        'AND ("timestamp", id) < ($2, $3) '
        'ORDER BY "timestamp" DESC, id DESC LIMIT $4', :'leaf_ann'),
        'uuid, timestamptz, uuid, int', quote_literal(:ann)
        || ', now(), gen_random_uuid(), 20') AS page;

SELECT matches(one, 'Index Scan using ' || :'leaf_ann' || '_pkey',
    'one by the primary key') FROM p;
SELECT matches(one, 'Index Cond: \(\(user_id = \$1\) AND \(id = \$2\)\)',
    'with both columns') FROM p;
SELECT matches(one, 'current_setting', 'hm_actor is inlined') FROM p;
SELECT unalike(one, '%hm_actor(%', 'all of it') FROM p;
SELECT matches(list, 'Index Scan using ' || :'leaf_ann' || '_user_id_timestamp',
    'a list by the list index') FROM p;
SELECT unalike(list, '%Sort%', 'without a sort') FROM p;
SELECT matches(page, 'Index Cond: .*ROW\("timestamp", id\) < ROW\(\$2, \$3\)',
    'a page starts at its cursor') FROM p;
SELECT unalike(page, '%Rows Removed%', 'and reads no row in vain') FROM p;

SELECT is(coalesce(pg_stat_get_xact_function_calls(
    'hm_may(uuid,uuid,text)'::regprocedure), 0), 0::bigint,
    'own rows ask hm_may nothing');
SELECT is(tap.hm_as('hm_api', :ann, format(
    'SELECT FROM %s WHERE user_id = %L', :'leaf_ann', :ann)), '203', 'own');
SELECT is(coalesce(pg_stat_get_xact_function_calls(
    'hm_may(uuid,uuid,text)'::regprocedure), 0), 0::bigint, 'still nothing');
SELECT is(tap.hm_get('hm_api', :ann, format(
    'SELECT array_agg(version ORDER BY version)::text || '
    'array_agg(state ORDER BY version)::text || (SELECT wrapped_key::text '
    'FROM user_index_keys i WHERE i.user_id = %1$L) || '
    '(hm_leaf(%1$L) BETWEEN 0 AND 7)::text FROM user_keys '
    'WHERE user_id = %1$L', :ann)), '{1}{active}\x03true',
    'a person''s keys and leaf in one row');

SELECT * FROM finish();
ROLLBACK;
