// Keeps the states on a page true: replaces badges as the server announces them, and has rows fetch themselves anew.
// One EventSource, open only while the page is visible (browsers allow six connections per site); it carries on from
// the position seen last. Where it cannot connect, the page asks every few seconds instead. And silence is no news: a
// badge says for how many seconds it may be believed, and what has heard nothing newer by then fetches itself anew.
(() => {
  const { stream, position: rendered } = document.body.dataset;
  if (!stream) return;
  const words = { live: "live", "catching up": "catching up", polling: "updating every 5 s" };
  const outermost = "[data-refresh]:not([data-refresh] [data-refresh])"; // a list fetches its rows with itself
  const wanted = new Set();
  const believedUntil = new WeakMap(); // badge -> milliseconds since the page was loaded
  const SILENCE = 25000; // the server says something every 10 s; a connection that was cut on the way may seem open
  let position = rendered || "0";
  let source, polling, retry, patience, refreshing, silence;
  let anyAt = 0;
  let listeners = 1; // pages that receive the same events

  function mark(state) {
    const element = document.getElementById("live-mark");
    if (!element || element.dataset.live === state) return;
    element.dataset.live = state;
    element.textContent = words[state];
  }

  // What a page fetches by itself is no use of the session: it ends as if nobody were here.
  document.body.addEventListener("htmx:configRequest", ({ detail }) => {
    if (detail.triggeringEvent?.type === "refresh") detail.headers.Background = "1";
  });

  function replaceBadge(key, html) {
    const template = document.createElement("template");
    template.innerHTML = html;
    for (const old of document.querySelectorAll(`[data-badge="${CSS.escape(key)}"]`)) {
      old.replaceWith(template.content.firstElementChild.cloneNode(true));
    }
  }

  // Events come in bursts: each element fetches itself once for all of them. Pages spread their requests over `spread`
  // milliseconds, so that the server doesn't receive all of them at the same time.
  function refresh(selector, spread) {
    for (const element of document.querySelectorAll(selector)) refreshElement(element, spread);
  }

  function refreshElement(element, spread = Math.min(2 * listeners, 500)) {
    wanted.add(element);
    refreshing ??= setTimeout(
      () => {
        refreshing = undefined;
        for (const element of wanted) if (element.isConnected) htmx.trigger(element, "refresh");
        wanted.clear();
      },
      200 + spread * Math.random(),
    );
  }

  function refreshAny() {
    const wait = anyAt + 1000 - Date.now();
    if (wait > 1000) return; // one is planned already
    anyAt = Date.now() + Math.max(0, wait);
    setTimeout(() => refresh('[data-refresh~="any"]'), Math.max(0, wait));
  }

  function doubtOldNews() {
    if (document.hidden) return;
    const now = performance.now();
    for (const badge of document.querySelectorAll("[data-holds]")) {
      if (!believedUntil.has(badge)) believedUntil.set(badge, now + 1000 * badge.dataset.holds);
      if (believedUntil.get(badge) > now) continue;
      believedUntil.set(badge, now + 10000); // should the answer be long in coming
      for (const element of document.querySelectorAll(outermost)) if (element.contains(badge)) refreshElement(element);
    }
  }

  function heard() {
    clearTimeout(silence);
    silence = setTimeout(() => {
      disconnect();
      connect();
    }, SILENCE);
  }

  function onBadge(event) {
    position = event.lastEventId;
    const { key, html, refresh: keys } = JSON.parse(event.data);
    replaceBadge(key, html);
    refreshKeys(keys);
    refreshAny();
  }

  function refreshKeys(keys) {
    for (const name of keys) refresh(`[data-refresh~="${CSS.escape(name)}"]`);
  }

  function onRefresh(event) {
    position = event.lastEventId;
    refreshKeys(JSON.parse(event.data));
  }

  function onResync(event) {
    position = event.lastEventId;
    refresh(outermost, Math.min(20 * listeners, 10000));
  }

  function onListeners(event) {
    listeners = JSON.parse(event.data).listeners ?? 1;
  }

  function poll(on) {
    clearInterval(polling);
    polling = on ? setInterval(() => refresh(outermost), 5000) : undefined;
  }

  function startPolling() {
    mark("polling");
    poll(true);
  }

  function catchUp() {
    if (polling) return;
    mark("catching up");
    patience ??= setTimeout(startPolling, 5000);
  }

  function onError() {
    if (source.readyState !== EventSource.CLOSED) return catchUp(); // the browser tries again by itself
    disconnect();
    startPolling();
    retry = setTimeout(connect, 5000 + 5000 * Math.random());
  }

  function onLive() {
    stopWaiting();
    poll(false);
    mark("live");
  }

  function connect() {
    if (source || document.hidden) return;
    clearTimeout(retry);
    catchUp();
    source = new EventSource(`${stream}?position=${encodeURIComponent(position)}`);
    heard();
    for (const name of ["alive", "badge", "refresh", "resync", "live"]) source.addEventListener(name, heard);
    source.onerror = onError;
    source.addEventListener("badge", onBadge);
    source.addEventListener("refresh", onRefresh);
    source.addEventListener("resync", onResync);
    source.addEventListener("live", onLive);
    for (const name of ["alive", "live"]) source.addEventListener(name, onListeners);
  }

  function stopWaiting() {
    clearTimeout(retry);
    clearTimeout(patience);
    patience = undefined;
  }

  function disconnect() {
    stopWaiting();
    clearTimeout(silence);
    poll(false);
    source?.close();
    source = undefined;
  }

  // What nobody announces is looked at by the clock.
  setInterval(() => document.hidden || refresh('[data-refresh~="clock"]'), 12000);
  document.addEventListener("visibilitychange", () => (document.hidden ? disconnect() : connect()));
  window.addEventListener("pagehide", disconnect);
  window.addEventListener("pageshow", connect);
  setInterval(doubtOldNews, 2000);
  connect();
})();
