// Forgeries of access tokens, and jose's opinion of each.
//
// In: {now, issuer, audience, claims, keys: [{kid, alg, pem | secret}],
// gone: {kid, alg, secret}}.  Out: {good: [...], forged: [...]} of {name,
// token, jose}, jose being "accepted" or why not.  A forgery starts from a
// token that is good and differs from it in one thing.  `stricter` marks what
// jose may take and we do not, each for a reason that is in its name.

import { createRequire } from 'node:module';
import crypto from 'node:crypto';
import { pathToFileURL } from 'node:url';

const require = createRequire(process.env.HM_NODE + '/package.json');
const jose = await import(pathToFileURL(require.resolve('jose')).href);

let text = '';
for await (const part of process.stdin) text += part;
const doc = JSON.parse(text);

const b64 = (x) => Buffer.from(x).toString('base64url');
const keys = {};
for (const k of doc.keys) {
  keys[k.kid] = {
    ...k,
    priv: k.pem ? crypto.createPrivateKey(k.pem) : Buffer.from(k.secret),
    pub: k.pem ? crypto.createPublicKey(k.pem) : Buffer.from(k.secret),
  };
}

function sign(key, data) {
  if (key.alg === 'HS256')
    return crypto.createHmac('sha256', key.priv).update(data).digest();
  return crypto.sign(key.alg === 'ES256' ? 'sha256' : null, Buffer.from(data),
    { key: key.priv, dsaEncoding: 'ieee-p1363' });
}

const mac = (secret, data) =>
  crypto.createHmac('sha256', secret).update(data).digest();

function token(key, head, body, sig) {
  const data = b64(typeof head === 'string' || Buffer.isBuffer(head)
    ? head : JSON.stringify(head))
    + '.' + b64(typeof body === 'string' || Buffer.isBuffer(body)
      ? body : JSON.stringify(body));
  return data + '.' + b64(sig ? sig(data) : sign(key, data));
}

// The ring as a careful user of jose would have it.
async function opinion(t) {
  try {
    const { payload } = await jose.jwtVerify(t, (h) => {
      const k = typeof h.kid === 'string' ? keys[h.kid] : undefined;
      if (!k) throw new Error('unknown kid');
      if (k.alg !== h.alg) throw new Error('not the key\'s algorithm');
      return k.pub;
    }, {
      algorithms: ['HS256', 'ES256', 'EdDSA'], typ: 'JWT',
      issuer: doc.issuer, audience: doc.audience,
      requiredClaims: ['exp', 'iat', 'nbf', 'sub', 'sid', 'jti', 'role'],
    });
    if (payload.typ !== 'access') throw new Error('not an access token');
    return 'accepted';
  } catch (e) {
    return e.code ?? e.message;
  }
}

const forged = [];
const add = (name, t, stricter = false) =>
  forged.push({ name, token: t, stricter });

function headers(key) {
  const { alg, kid } = key;
  const good = { alg, typ: 'JWT', kid };
  const c = doc.claims;
  const as = (name, h, stricter) =>
    add(`${alg}: header ${name}`, token(key, h, c), stricter);
  const raw = JSON.stringify(good);

  for (const a of ['none', 'None', 'NONE', 'nOnE', '', alg.toLowerCase() + ' ',
    'HS384', 'HS512', 'RS256', 'PS256', 'ES384', 'ES256K', 'Ed25519', 'HS1'])
    as(`alg ${JSON.stringify(a)}`, { ...good, alg: a });
  for (const a of ['HS256', 'ES256', 'EdDSA'])
    if (a !== alg) as(`alg of another key, ${a}`, { ...good, alg: a });
  for (const a of [null, 0, true, [alg], { a: alg }])
    as(`alg ${JSON.stringify(a)}`, { ...good, alg: a });
  add(`${alg}: alg none, no signature`,
    token(key, { ...good, alg: 'none' }, c, () => ''));
  as('without alg', { typ: 'JWT', kid });
  as('without typ', { alg, kid });
  as('typ at+jwt', { ...good, typ: 'at+jwt' });
  as('typ in small letters', { ...good, typ: 'jwt' }, true);
  as('typ null', { ...good, typ: null });
  as('without kid', { alg, typ: 'JWT' });
  for (const k of ['', 'nobody', '../../../../dev/null', "' or '1'='1",
    kid + ' ', kid + '\u0000', kid.toUpperCase(), 7, null, [kid]])
    as(`kid ${JSON.stringify(k)}`, { ...good, kid: k });

  // A key that comes with the token is no key.
  const own = crypto.generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const theirs = { alg: 'ES256', priv: own.privateKey };
  const jwk = own.publicKey.export({ format: 'jwk' });
  for (const [n, h] of [
    ['jwk', { jwk }], ['jku', { jku: 'https://evil.example/jwks.json' }],
    ['x5u', { x5u: 'https://evil.example/cert.pem' }],
    ['x5c', { x5c: ['MIIB'] }], ['x5t', { x5t: 'AAAA' }]]) {
    add(`${alg}: ${n}, signed by the key it names`,
      token(theirs, { ...good, alg: 'ES256', ...h }, c));
    as(`with ${n}, signed by ours`, { ...good, ...h }, true);
  }
  as('crit', { ...good, crit: ['exp'] });
  as('crit of something unknown', { ...good, crit: ['x'], x: 1 });
  as('crit empty', { ...good, crit: [] });
  as('b64 false', { ...good, b64: false }, true);
  as('b64 false and crit', { ...good, b64: false, crit: ['b64'] });
  as('zip', { ...good, zip: 'DEF' }, true);
  as('enc', { ...good, enc: 'A256GCM' }, true);
  as('cty', { ...good, cty: 'JWT' }, true);
  as('a further member', { ...good, foo: 1 }, true);
  as('alg twice, none first', `{"alg":"none",${raw.slice(1)}`, true);
  as('alg twice, none last', raw.slice(0, -1) + ',"alg":"none"}');
  as('kid twice', `{"kid":"nobody",${raw.slice(1)}`, true);
  as('kid twice, escaped', `{"\\u006bid":"nobody",${raw.slice(1)}`, true);
  as('an array', `[${raw}]`);
  as('a string', '"x"');
  as('null', 'null');
  as('empty', '');
  as('not closed', raw.slice(0, -1));
  as('followed by something', raw + 'x');
  as('followed by NUL', raw + '\u0000');
  as('with a BOM', '\ufeff' + raw, true);
  as('not UTF-8', Buffer.concat([Buffer.from(raw.slice(0, -1) + ',"x":"'),
    Buffer.from([0xff, 0xfe]), Buffer.from('"}')]), true);
  as('of 20 kB', { ...good, x: 'a'.repeat(3000) }, true);
}

function claims(key) {
  const { alg, kid } = key;
  const head = { alg, typ: 'JWT', kid };
  const now = doc.now;
  const c = doc.claims;
  const as = (name, b, stricter) =>
    add(`${alg}: claim ${name}`, token(key, head, b), stricter);
  const set = (name, value, stricter) =>
    as(`${name} ${JSON.stringify(value)}`.slice(0, 60),
      { ...c, [name]: value }, stricter);
  const without = (name, stricter) => {
    const b = { ...c };
    delete b[name];
    as('without ' + name, b, stricter);
  };
  const raw = JSON.stringify(c);
  const lit = (name, value, stricter) =>
    as(`${name} ${value}`, raw.replace(new RegExp(`"${name}":[0-9]+`),
      `"${name}":${value}`), stricter);

  as('expired just now', { ...c, iat: now - 1800, nbf: now - 1800,
    auth_time: now - 1800, exp: now });
  as('expired long ago', { ...c, iat: now - 7200, nbf: now - 7200,
    auth_time: now - 7200, exp: now - 5400 });
  set('exp', now - 1);
  set('exp', now - 86400 * 365);
  set('exp', 0);
  set('exp', -1);
  set('exp', String(now + 1800));
  set('exp', null);
  set('exp', true);
  set('exp', [now + 1800]);
  lit('exp', (now + 1800) + '.5', true);
  lit('exp', (now + 1800) + '.0', true);
  lit('exp', '1e400', true);
  lit('exp', '1e30', true);
  lit('exp', '9223372036854775808', true);
  lit('exp', '-1e400');
  lit('exp', 'NaN');
  lit('exp', 'Infinity');
  lit('exp', '0x7fffffff');
  lit('exp', '09999999999');
  without('exp');
  set('nbf', now + 3600);
  set('nbf', String(now));
  set('nbf', null);
  without('nbf');
  set('iat', now + 3600, true);
  set('iat', now + 1801, true);
  set('iat', 'now');
  without('iat');
  set('auth_time', now + 3600, true);
  without('auth_time', true);
  for (const n of ['iss', 'aud']) {
    set(n, 'somebody else');
    set(n, c[n] + ' ');
    set(n, c[n].toUpperCase());
    set(n, '');
    set(n, null);
    set(n, { a: c[n] });
    without(n);
  }
  set('iss', [c.iss]);
  set('aud', [c.aud], true);
  set('aud', ['somebody else', c.aud], true);
  for (const t of ['refresh', 'reset', 'verify', 'Access', 'access ', '', null,
    ['access']])
    set('typ', t);
  without('typ');
  for (const n of ['sub', 'sid', 'jti']) {
    set(n, '', n !== 'sub' || true);
    set(n, 'admin', true);
    set(n, 7, true);
    set(n, [c[n]], true);
    set(n, c[n] + '0', true);
    without(n);
  }
  set('sub', '00000000-0000-0000-0000-000000000000', true);
  for (const r of ['root', 'Admin', 'none', '', ['admin'], null, 3])
    set('role', r, true);
  without('role');
  for (const a of ['pwd', ['face'], ['pwd', 'pwd'], [1], null, {}])
    set('amr', a, true);
  without('amr', true);
  for (const f of ['', 'short', 7, null, 'A'.repeat(43), 'A'.repeat(44)])
    set('fgp', f, true);
  as('sub twice', `{"sub":"${c.sid}",${raw.slice(1)}`, true);
  as('exp twice', `{"exp":1,${raw.slice(1)}`, true);
  as('exp twice, bad last', raw.slice(0, -1) + ',"exp":1}');
  as('role twice', raw.slice(0, -1) + ',"role":"admin"}', true);
  as('role twice, escaped', raw.slice(0, -1) + ',"r\\u006fle":"admin"}', true);
  as('set empty', {});
  as('set an array', [c]);
  as('set a string', '"x"');
  as('set null', 'null');
  as('set nothing', '');
  as('set not closed', raw.slice(0, -1));
  as('set followed by something', raw + '{}');
  as('set followed by NUL', raw + '\u0000');
  as('set with a BOM', '\ufeff' + raw, true);
  as('set not UTF-8', Buffer.concat([Buffer.from(raw.slice(0, -1) + ',"x":"'),
    Buffer.from([0xc0, 0xaf]), Buffer.from('"}')]), true);
  as('set 200 levels deep', raw.slice(0, -1) + ',"x":' + '['.repeat(200)
    + ']'.repeat(200) + '}', true);
  as('set with a lone surrogate', raw.slice(0, -1) + ',"x":"\\ud800"}', true);
  as('set of 5 kB', { ...c, x: 'a'.repeat(5000) }, true);
  as('set of 48 kB', { ...c, x: 'a'.repeat(48000) }, true);
}

function shapes(key) {
  const { alg, kid } = key;
  const head = { alg, typ: 'JWT', kid };
  const good = token(key, head, doc.claims);
  const [h, b, s] = good.split('.');
  const as = (name, t, stricter) => add(`${alg}: ${name}`, t, stricter);
  const sig = Buffer.from(s, 'base64url');
  const abc =
    'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_';
  // The last character with other unused bits: the same bytes to a
  // careless decoder.
  const tail = (x) => {
    const free = (4 - (x.length % 4)) % 4 * 2;
    if (free === 0) return null;
    return x.slice(0, -1) + abc[abc.indexOf(x.at(-1)) ^ 1];
  };

  as('one part', h);
  as('two parts', `${h}.${b}`);
  as('four parts', `${good}.${s}`);
  as('five parts', `${h}..${b}.${s}.${s}`);
  as('a dot in front', '.' + good);
  as('a dot behind', good + '.');
  as('three dots', '...');
  as('no header', `.${b}.${s}`);
  as('no claims', `${h}..${s}`);
  as('no signature', `${h}.${b}.`);
  as('padding', good + '=', true);
  as('padding, twice', good + '==', true);
  as('padding in the claims', `${h}.${b}=.${s}`);
  as('unused bits of the signature', `${h}.${b}.${tail(s)}`, true);
  for (const [n, x, i] of [['header', h, 0], ['claims', b, 1]]) {
    // Signed as it stands, so that only the spelling is wrong.
    let y = tail(x);
    if (y === null) {
      const more = i === 0 ? null : b64(JSON.stringify(doc.claims) + ' ');
      y = more === null ? null : tail(more);
    }
    if (y !== null) {
      const data = i === 0 ? `${y}.${b}` : `${h}.${y}`;
      as(`unused bits of the ${n}, signed`, data + '.' + b64(sign(key, data)),
        true);
    }
  }
  as('a blank inside', `${h}. ${b}.${s}`, true);
  as('a tab inside', `${h}.${b}.\t${s}`, true);
  as('base64, not base64url', `${h}.${b}.${sig.toString('base64')
    .replace(/=+$/, '').replace(/^../, '+/')}`);
  as('a foreign character', `${h}.${b}.${'*' + s.slice(1)}`);
  as('percent-encoded', good.replace('.', '%2E'));
  as('in quotes', `"${good}"`);
  as('JSON serialization', JSON.stringify({ protected: h, payload: b,
    signature: s }));
  as('signature cut by one', `${h}.${b}.${b64(sig.subarray(0, -1))}`);
  as('signature of 16 bytes', `${h}.${b}.${b64(sig.subarray(0, 16))}`);
  as('signature of one byte', `${h}.${b}.${b64(sig.subarray(0, 1))}`);
  as('signature and one byte',
    `${h}.${b}.${b64(Buffer.concat([sig, Buffer.from([0])]))}`);
  as('signature of zeros', `${h}.${b}.${b64(Buffer.alloc(sig.length))}`);
  as('signature of ones',
    `${h}.${b}.${b64(Buffer.alloc(sig.length, 0xff))}`);
  for (const i of [0, 15, sig.length - 1]) {
    const x = Buffer.from(sig);
    x[i] ^= 0x80;
    as(`one bit of byte ${i}`, `${h}.${b}.${b64(x)}`);
  }
  as('another\'s claims under this signature', `${h}.${
    b64(JSON.stringify({ ...doc.claims, role: 'admin' }))}.${s}`);
  as('the signature of another token', `${h}.${b}.${
    token(key, head, { ...doc.claims, iat: doc.claims.iat - 1 })
      .split('.')[2]}`);
  as('signed without the dot', `${h}.${b}.${b64(sign(key, h + b))}`);
  as('signed over the claims alone', `${h}.${b}.${b64(sign(key, b))}`);
  as('a MAC under nothing', `${h}.${b}.${b64(mac('', `${h}.${b}`))}`);
  as('a MAC under "secret"', `${h}.${b}.${b64(mac('secret', `${h}.${b}`))}`);
  as('a MAC under zeros',
    `${h}.${b}.${b64(mac(Buffer.alloc(32), `${h}.${b}`))}`);
  as('the token twice', `${good}${good}`);
}

const P256 = BigInt(
  '0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551');
const L = (1n << 252n) + 27742317777372353535851937790883648493n;
const be = (n) => Buffer.from(n.toString(16).padStart(64, '0'), 'hex');
const num = (x) => BigInt('0x' + Buffer.from(x).toString('hex'));

function curves() {
  for (const key of Object.values(keys)) {
    const head = { alg: key.alg, typ: 'JWT', kid: key.kid };
    const c = doc.claims;
    const as = (name, f, stricter) =>
      add(`${key.alg}: ${name}`, token(key, head, c, f), stricter);
    if (key.alg === 'ES256') {
      const cat = (...x) => () => Buffer.concat(x);
      const one = (f) => (d) => f(sign(key, d));
      as('r and s 0', cat(be(0n), be(0n)));
      as('r 1, s 1', cat(be(1n), be(1n)));
      as('r 0', one((x) => Buffer.concat([be(0n), x.subarray(32)])));
      as('s 0', one((x) => Buffer.concat([x.subarray(0, 32), be(0n)])));
      as('r n', one((x) => Buffer.concat([be(P256), x.subarray(32)])));
      as('s n', one((x) => Buffer.concat([x.subarray(0, 32), be(P256)])));
      as('r and s changed places',
        one((x) => Buffer.concat([x.subarray(32), x.subarray(0, 32)])));
      as('DER', (d) => crypto.sign('sha256', Buffer.from(d), key.priv));
      as('SHA-384', (d) => crypto.sign('sha384', Buffer.from(d),
        { key: key.priv, dsaEncoding: 'ieee-p1363' }));
    }
    if (key.alg === 'EdDSA') {
      const withS = (x, s) => Buffer.concat([x.subarray(0, 32),
        be(s).reverse()]);
      const s = (x) => num(Buffer.from(x.subarray(32)).reverse());
      as('S + l', (d) => { const x = sign(key, d); return withS(x, s(x) + L); });
      as('S + 2l',
        (d) => { const x = sign(key, d); return withS(x, s(x) + 2n * L); });
      for (const bit of [5, 6, 7])
        as(`S with high bit ${bit}`, (d) => {
          const x = Buffer.from(sign(key, d));
          x[63] |= 1 << bit;
          return x;
        });
      as('R neutral, S 0', () => Buffer.concat([be(1n).reverse(), be(0n)]));
      as('R with its sign bit',
        (d) => { const x = Buffer.from(sign(key, d)); x[31] ^= 0x80; return x; });
    }
  }
}

// A public key is no secret, whatever the header says.
function confusion() {
  const c = doc.claims;
  for (const key of Object.values(keys)) {
    if (!key.pem) continue;
    const spki = key.pub.export({ type: 'spki', format: 'pem' });
    const der = key.pub.export({ type: 'spki', format: 'der' });
    const jwk = key.pub.export({ format: 'jwk' });
    for (const [n, secret] of [
      ['PEM', spki], ['PEM without its end of line', spki.trimEnd()],
      ['PEM in one line', spki.replace(/\n/g, '')], ['DER', der],
      ['x', Buffer.from(jwk.x, 'base64url')], ['JWK', JSON.stringify(jwk)]])
      for (const kid of Object.keys(keys))
        add(`HS256 under the public key of ${key.kid} as ${n}, kid ${kid}`,
          token(key, { alg: 'HS256', typ: 'JWT', kid }, c,
            (d) => mac(secret, d)));
  }
  for (const a of Object.values(keys))
    for (const b of Object.values(keys)) {
      if (a === b) continue;
      add(`signed by ${a.kid}, kid ${b.kid}, alg of ${a.kid}`,
        token(a, { alg: a.alg, typ: 'JWT', kid: b.kid }, c));
      add(`signed by ${a.kid}, kid ${b.kid}, alg of ${b.kid}`,
        token(a, { alg: b.alg, typ: 'JWT', kid: b.kid }, c));
    }
  // Keys of strangers under the names of ours.
  const ec = crypto.generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const ed = crypto.generateKeyPairSync('ed25519');
  for (const key of Object.values(keys)) {
    const priv = { HS256: crypto.randomBytes(32), ES256: ec.privateKey,
      EdDSA: ed.privateKey }[key.alg];
    add(`${key.alg}: a stranger's key`, token({ alg: key.alg, priv },
      { alg: key.alg, typ: 'JWT', kid: key.kid }, c));
  }
  const gone = { ...doc.gone, priv: Buffer.from(doc.gone.secret) };
  add('a key that was removed',
    token(gone, { alg: 'HS256', typ: 'JWT', kid: gone.kid }, c));
}

const good = [];
for (const key of Object.values(keys)) {
  headers(key);
  claims(key);
  shapes(key);
  for (const extra of [{}, { unknown: { a: [1] } }]) {
    const t = await new jose.SignJWT({ ...doc.claims, ...extra })
      .setProtectedHeader({ alg: key.alg, typ: 'JWT', kid: key.kid })
      .sign(key.priv);
    good.push({ name: `${key.alg} made by jose`, token: t });
  }
  if (key.alg === 'ES256') {
    // (r, n - s) is as good a signature; both spellings are accepted.
    const [h, b, s] = good.at(-1).token.split('.');
    const x = Buffer.from(s, 'base64url');
    good.push({ name: 'ES256 with the other s', token: `${h}.${b}.` + b64(
      Buffer.concat([x.subarray(0, 32), be(P256 - num(x.subarray(32)))])) });
  }
}
curves();
confusion();

for (const x of [...good, ...forged, ...(doc.ours ?? [])])
  x.jose = await opinion(x.token);

// What others do with our key set.
let jwks = null;
if (doc.jwks) {
  const set = jose.createLocalJWKSet(doc.jwks);
  jwks = [];
  for (const x of doc.ours)
    jwks.push(await jose.jwtVerify(x.token, set, { typ: 'JWT',
      issuer: doc.issuer, audience: doc.audience })
      .then(() => 'accepted', (e) => e.code ?? e.message));
}

process.stdout.write(JSON.stringify({ good, forged, ours: doc.ours, jwks }));
