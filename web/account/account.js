/*
 * The account page: signing in, second factors, password.
 *
 * Tokens live in this script's variables and nowhere else: closing the page
 * forgets them, and the fingerprint cookie alone opens nothing.  An action
 * that needs a recent sign-in is kept, asked for, and done again.
 */
"use strict";

const $ = (id) => document.getElementById(id);
const show = (id, on) => { $(id).hidden = !on; };

let access = null, refresh = null, user = null, pending = null;


function say(text, bad) {
    const m = $("message");
    m.textContent = text || "";
    m.className = bad ? "bad" : "";
    m.hidden = !text;
}


class Problem extends Error {
    constructor(doc) {
        super(doc.detail || doc.title || "It did not work.");
        this.code = doc.code;
        this.title = doc.title;
    }
}


async function call(method, path, body, again) {
    const headers = {};
    if (access) headers.Authorization = "Bearer " + access;
    if (body !== undefined) headers["Content-Type"] = "application/json";

    const r = await fetch("/api/v1" + path, {
        method, headers, cache: "no-store",
        body: body === undefined ? undefined : JSON.stringify(body),
    });
    const text = await r.text();
    const doc = text ? JSON.parse(text) : {};

    if (r.ok) return doc;

    if (doc.code === "auth.token_expired" && !again && await renew()) {
        return call(method, path, body, true);
    }
    throw new Problem(doc);
}


/* The session answer of login, refresh, reauth. */
function take(session) {
    access = session.access_token;
    refresh = session.refresh_token;
    user = session.user;
}


async function renew() {
    access = null;
    try {
        take(await call("POST", "/auth/refresh", { refresh_token: refresh },
                        true));
        return true;
    } catch (e) {
        leave();
        return false;
    }
}


function leave() {
    access = refresh = user = pending = null;
    show("signed-in", false);
    show("who", false);
    show("signed-out", true);
    show("otp-row", false);
    show("again", false);
    show("recovery", false);
    show("totp-new", false);
    for (const f of document.forms) f.reset();
}


/* Runs an action; a button that started it waits. */
async function run(action, button) {
    say("");
    if (button) button.disabled = true;
    try {
        await action();
    } catch (e) {
        if (e.code === "auth.reauth_required") {
            pending = action;
            ask();
        } else if (e.name === "NotAllowedError") {
            say("The device did not answer, or you said no.", true);
        } else if (e.name === "InvalidStateError") {
            say("This device has a passkey of this account already.", true);
        } else {
            say(e.code === "auth.mfa_required" && user
                ? "First set up codes from an app, or a passkey."
                : e.message, true);
        }
    } finally {
        if (button) button.disabled = false;
    }
}


function on(form, action) {
    $(form).addEventListener("submit", (ev) => {
        ev.preventDefault();
        run(action, ev.submitter);
    });
}


function click(id, action) {
    $(id).addEventListener("click", (ev) => run(action, ev.currentTarget));
}


/* Signing in */


async function signIn() {
    const body = { email: $("email").value, password: $("password").value };
    const otp = $("otp").value.trim();
    if (otp) body.otp = otp;

    try {
        take(await call("POST", "/auth/login", body));
    } catch (e) {
        if (e.code === "auth.mfa_required" || e.code === "auth.mfa_invalid") {
            show("otp-row", true);
            $("otp").value = "";
            $("otp").focus();
            if (e.code === "auth.mfa_required") return;
        }
        throw e;
    }
    await enter();
}


async function assertion() {
    const options = await call("POST", "/auth/passkeys/login/options");
    const credential = await navigator.credentials.get({
        publicKey: PublicKeyCredential.parseRequestOptionsFromJSON(options),
    });
    return credential.toJSON();
}


async function passkeyIn() {
    take(await call("POST", "/auth/passkeys/login/verify",
                    await assertion()));
    await enter();
}


async function enter() {
    for (const f of document.forms) f.reset();
    show("signed-out", false);
    show("signed-in", true);
    show("who", true);
    await draw();
}


async function draw() {
    user = await call("GET", "/auth/me");
    $("who-email").textContent = user.email;

    const totp = user.mfa.includes("totp");
    $("totp-state").textContent = totp
        ? "On. Signing in with your password asks for a code."
        : "Off. A code besides your password keeps others out.";
    show("totp-start", !totp);
    show("totp-remove", totp);
    show("recovery-new", user.mfa.length > 0);

    let keys = { items: [] };
    try {
        keys = await call("GET", "/auth/passkeys");
    } catch (e) {
        if (e.code !== "auth.mfa_required"
            && e.code !== "resource.not_found") throw e;
    }
    show("keys-none", keys.items.length === 0);
    $("keys").replaceChildren(...keys.items.map(item));
}


function item(key) {
    const li = document.createElement("li");
    const text = document.createElement("span");
    const small = document.createElement("small");
    const button = document.createElement("button");
    const day = (t) => new Date(t).toLocaleDateString();

    text.textContent = key.name || "Passkey";
    small.textContent = "added " + day(key.created_at)
        + (key.last_used_at ? ", last used " + day(key.last_used_at) : "");
    text.append(small);
    button.type = "button";
    button.className = "quiet";
    button.textContent = "Remove";
    button.setAttribute("aria-label", "Remove " + text.textContent);
    button.addEventListener("click", () => run(async () => {
        await call("DELETE", "/auth/passkeys/" + key.id);
        await draw();
        say("The passkey is removed.");
    }, button));
    li.append(text, button);
    return li;
}


/* Is it still you? */


function ask() {
    const totp = user.mfa.includes("totp");
    $("again-label").textContent = totp ? "Code from your app" : "Password";
    $("again-secret").type = totp ? "text" : "password";
    $("again-secret").autocomplete = totp ? "one-time-code"
                                          : "current-password";
    show("again-passkey", user.mfa.includes("passkey"));
    show("reauth", totp || user.mfa.length === 0);
    show("again", true);
    $("again").scrollIntoView({ block: "start" });
    (totp || user.mfa.length === 0 ? $("again-secret")
                                   : $("again-passkey")).focus();
}


async function resume(body) {
    take(await call("POST", "/auth/reauth", body));
    $("reauth").reset();
    show("again", false);
    const action = pending;
    pending = null;
    if (action) await action();
}


const reauth = () => resume(user.mfa.includes("totp")
    ? { otp: $("again-secret").value.trim() }
    : { password: $("again-secret").value });


/* Codes from an app */


async function totpStart() {
    const t = await call("POST", "/auth/mfa/totp");
    $("totp-qr").src = "data:image/svg+xml;utf8,"
        + encodeURIComponent(t.qr_svg);
    $("totp-secret").textContent = t.secret.match(/.{4}/g).join(" ");
    show("recovery", false);
    show("totp-new", true);
    show("totp-start", false);
}


async function totpConfirm() {
    const r = await call("POST", "/auth/mfa/totp/confirm",
                         { otp: $("totp-code").value });
    forget();
    codes(r.recovery_codes);
    await renew();                       /* the token names the factor now */
    await draw();
    say("Codes are on.");
}


function forget() {
    $("totp-qr").removeAttribute("src");
    $("totp-secret").textContent = "";
    $("totp-confirm").reset();
    show("totp-new", false);
}


function codes(list) {
    $("recovery-codes").replaceChildren(...list.map((c) => {
        const li = document.createElement("li");
        li.textContent = c;
        return li;
    }));
    show("recovery", true);
}


async function totpRemove() {
    await call("DELETE", "/auth/mfa/totp");
    show("recovery", false);
    await draw();
    say("Codes are off.");
}


async function recoveryNew() {
    codes((await call("POST", "/auth/mfa/recovery-codes")).recovery_codes);
}


/* Passkeys */


async function keyAdd() {
    const options = await call("POST", "/auth/passkeys/register/options");
    const credential = await navigator.credentials.create({
        publicKey: PublicKeyCredential.parseCreationOptionsFromJSON(options),
    });
    const body = credential.toJSON();
    const name = $("key-name").value.trim();
    if (name) body.name = name;

    await call("POST", "/auth/passkeys/register/verify", body);
    $("key-add").reset();
    await renew();
    await draw();
    say("The passkey is added.");
}


/* Password */


async function changePassword() {
    await call("POST", "/auth/change-password", {
        current_password: $("pass-old").value,
        new_password: $("pass-new").value,
    });
    $("change-password").reset();
    say("The password is changed. Other sessions have ended.");
}


async function signOut() {
    try {
        await call("POST", "/auth/logout");
    } finally {
        leave();
    }
    say("You are signed out.");
}


on("sign-in", signIn);
on("reauth", reauth);
on("totp-confirm", totpConfirm);
on("key-add", keyAdd);
on("change-password", changePassword);
click("passkey-in", passkeyIn);
click("again-passkey", async () => resume({ passkey: await assertion() }));
click("totp-start", totpStart);
click("totp-remove", totpRemove);
click("recovery-new", recoveryNew);
click("sign-out", signOut);

if (!window.PublicKeyCredential
    || !PublicKeyCredential.parseCreationOptionsFromJSON) {
    show("passkey-in", false);
    show("key-add", false);
}
