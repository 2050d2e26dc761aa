// Live numbers, hover boxes, the choice of a scheme, and small comforts of forms. Every page works without it.
"use strict";

(() => {
  const root = document.documentElement;
  const all = (where, what) => [...where.querySelectorAll(what)];

  // --- Scheme: kept in this browser; set before the page is drawn, so that nothing flashes.
  const THEMES = ["auto", "light", "dark"];
  const kept = () => {
    try { return localStorage.getItem("tally-theme") || "auto"; } catch { return "auto"; }
  };
  const paint = (theme) => {
    if (theme === "auto") delete root.dataset.theme;
    else root.dataset.theme = theme;
    all(document, "[data-theme-toggle]").forEach((one) => { one.textContent = `Theme: ${theme}`; one.hidden = false; });
  };
  const nextTheme = () => {
    const theme = THEMES[(THEMES.indexOf(kept()) + 1) % THEMES.length];
    try { localStorage.setItem("tally-theme", theme); } catch { /* A browser may keep nothing. */ }
    paint(theme);
  };
  paint(kept());

  // --- Figures as the server writes them: whole picodollars, rounded half to even.
  const USD = 10n ** 12n;
  const dollars = (money) => {
    if (!money) return "unknown";
    const [, sign, whole, part = ""] = /^(-?)(\d+)(?:\.(\d+))?$/.exec(money.usd);
    const size = BigInt(whole + part.padEnd(12, "0").slice(0, 12));
    let places = size >= USD || !size ? 2 : 4;
    while (size && size < USD / 100n && places < 8 && size < 10n ** BigInt(14 - places)) places += 1;
    const unit = 10n ** BigInt(12 - places), twice = (size % unit) * 2n;
    const steps = size / unit + (twice > unit || (twice === unit && (size / unit) % 2n) ? 1n : 0n);
    const minus = sign && size ? "\u2212" : "";
    if (size && !steps) return `${minus}<$${(10 ** -places).toFixed(places)}`;
    const digits = String(steps).padStart(places + 1, "0");
    return `${minus}$${BigInt(digits.slice(0, -places)).toLocaleString("en-US")}.${digits.slice(-places)}`;
  };
  // What calls under way have come to is not nothing before it has been counted.
  const soFar = (money, flying) => (flying && !Number(money.usd) ? "not counted yet" : dollars(money));
  const count = (number) => Number(number).toLocaleString("en-US");
  const calls = (number) => `${count(number)} call${number === 1 ? "" : "s"}`;
  const lasting = (seconds) => {
    if (seconds < 60) return `${seconds.toFixed(1)} s`;
    const whole = Math.round(seconds);
    return whole < 3600 ? `${Math.floor(whole / 60)} m ${whole % 60} s` : `${Math.floor(whole / 3600)} h ${Math.floor(whole / 60) % 60} m`;
  };

  // --- Live parts: what carries data-live is replaced by its fresh rendering when calls have ended.
  let known = "", asking = false, again = false, timer = 0;
  const each = () => Number(document.body.dataset.liveEach || 0) * 1000;
  const busy = (part) => part.contains(document.activeElement) && document.activeElement.matches("input, select, textarea");
  const take = (text) => {
    const fresh = new DOMParser().parseFromString(text, "text/html");
    // What is over needs to be fetched no more.
    document.body.dataset.liveEach = fresh.body.dataset.liveEach || "0";
    all(document, "[data-live]").forEach((old) => {
      const part = fresh.querySelector(`[data-live="${CSS.escape(old.dataset.live)}"]`);
      if (!part || busy(old) || part.innerHTML === old.innerHTML) return;
      const before = new Set(all(old, "[data-key]").map((one) => one.dataset.key));
      old.replaceChildren(...part.childNodes);
      all(old, "[data-key]").forEach((one) => { if (!before.has(one.dataset.key)) one.classList.add("fresh"); });
    });
    drawFlights();
  };
  const refresh = async () => {
    timer = 0;
    if (asking) { again = true; return; }
    asking = true;
    try {
      const answer = await fetch(location.href, { headers: { accept: "text/html" } });
      if (answer.redirected) { location.reload(); return; }
      if (answer.ok) {
        const text = await answer.text();
        if (text !== known) take(text);
        known = text;
      }
    } catch { /* The stream says when the server is back. */ } finally {
      asking = false;
      if (again) { again = false; soon(); }
    }
  };
  const soon = () => { if (each() && !timer) timer = setTimeout(refresh, each()); };

  // --- The stream of events: calls in flight, calls that end, the sum of the last minute.
  let source = null, wait = 1000, flights = { count: 0, in_flight: [] }, skew = 0;
  const pulse = (state, words) => all(document, "[data-pulse]").forEach((one) => {
    if (one.dataset.pulse !== state) one.dataset.pulse = state;
    const place = one.querySelector("[data-pulse-text]");
    if (place.textContent !== words) place.textContent = words;
  });
  const put = (name, text) => all(document, `[data-sse="${name}"]`).forEach((one) => {
    if (one.textContent !== text) one.textContent = text;
  });
  const showMinute = (minute) => {
    put("minute.cost", dollars(minute.cost));
    put("minute.calls", calls(minute.calls));
  };
  const drawFlights = () => {
    put("flights.count", count(flights.count));
    put("flights.cost", soFar(flights.cost || { usd: "0" }, flights.count));
    put("flights.output", count(flights.output || 0));
    all(document, "[data-flights]").forEach(drawRows);
    age();
  };
  const drawRows = (body) => {
    const mould = document.querySelector("template[data-flight]");
    if (!mould) return;
    const rows = new Map(all(body, "tr[data-id]").map((row) => [row.dataset.id, row]));
    flights.in_flight.slice(0, 20).forEach((one, place) => {
      let row = rows.get(one.call_id);
      rows.delete(one.call_id);
      if (!row) {
        row = mould.content.firstElementChild.cloneNode(true);
        row.dataset.id = one.call_id;
        row.querySelector("[data-f=link]").href = `/calls/${encodeURIComponent(one.call_id)}`;
        row.querySelector("[data-f=model]").textContent = one.model || "unknown model";
        row.querySelector("[data-f=provider]").textContent = one.provider;
        row.querySelector("[data-f=run]").textContent = one.run || "—";
      }
      row.dataset.from = String(Date.parse(one.started_at));
      row.querySelector("[data-f=output]").textContent = count(one.output);
      row.querySelector("[data-f=cost]").textContent = soFar(one.cost, 1);
      if (body.children[place] !== row) body.insertBefore(row, body.children[place] || null);
    });
    rows.forEach((row) => row.remove());
    const none = document.querySelector("[data-flights-none]");
    if (none) none.hidden = flights.in_flight.length > 0;
    const table = body.closest("[data-flights-table]");
    if (table) table.hidden = !flights.in_flight.length;
  };
  const age = () => all(document, "tr[data-from]").forEach((row) => {
    row.querySelector("[data-f=age]").textContent = lasting(Math.max(0, (Date.now() + skew - Number(row.dataset.from)) / 1000));
  });
  const fly = (told) => {
    flights = told;
    skew = Date.parse(told.at) - Date.now();
    pulse(told.count ? "busy" : "on", told.count ? `live · ${count(told.count)} in flight` : "live");
    drawFlights();
  };
  const listen = () => {
    if (source || document.hidden || !document.querySelector("[data-pulse]")) return;
    source = new EventSource("/tally/v1/live");
    const on = (kind, act) => source.addEventListener(kind, (told) => act(JSON.parse(told.data)));
    let first = true;
    on("hello", (told) => {
      wait = 1000;
      fly(told);
      showMinute(told.minute);
      // Whatever ended while nobody listened is in the ledger now.
      if (!first || known) soon();
      first = false;
    });
    on("flights", fly);
    on("spend", (told) => { showMinute(told.minute); soon(); });
    on("call", soon);
    on("trouble", () => pulse("lost", "the ledger does not answer"));
    source.onerror = () => {
      pulse("lost", "not connected");
      if (source && source.readyState === EventSource.CLOSED) {
        source = null;
        setTimeout(listen, wait);
        wait = Math.min(wait * 2, 30000);
      }
    };
  };
  const hush = () => { if (source) { source.close(); source = null; } };
  // A browser opens few connections to one place: a page that nobody sees gives its own back.
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) hush();
    else { listen(); if (known) soon(); }
  });
  addEventListener("pagehide", hush);
  addEventListener("pageshow", (event) => { if (event.persisted) { listen(); soon(); } });

  // --- Hover boxes: a column of a chart (data-label, its marks with data-name and data-value), or anything with
  // data-tip="heading\nname\tvalue\tseries\n...".
  let box = null, mark = null;
  const tipFor = (text) => {
    const [head, ...rows] = text.split("\n");
    const made = document.createElement("div");
    made.className = "tip";
    const title = document.createElement("b");
    title.textContent = head;
    made.append(title);
    rows.filter(Boolean).forEach((line) => {
      const [name, value, series] = line.split("\t");
      const row = document.createElement("div"), left = document.createElement("span"), right = document.createElement("span");
      if (series) {
        const dot = document.createElement("i");
        dot.className = `swatch series-${Number(series)}`;
        left.append(dot);
      }
      left.append(name);
      right.textContent = value || "";
      row.append(left, right);
      made.append(row);
    });
    return made;
  };
  const slot = (one) => (/\bseries-(\d)\b/.exec(one.getAttribute("class") || "") || [])[1] || "";
  const words = (one) => one.dataset.tip || [one.dataset.label || "", ...all(one, "[data-value]").reverse().map(
    (part) => `${part.dataset.name}\t${part.dataset.value}\t${slot(part)}`)].join("\n");
  const place = (x, y) => {
    const { width, height } = box.getBoundingClientRect();
    box.style.left = `${Math.max(4, Math.min(x + 14, innerWidth - width - 4))}px`;
    box.style.top = `${y + 16 + height > innerHeight ? Math.max(4, y - height - 10) : y + 16}px`;
  };
  const drop = () => {
    if (mark) mark.classList.remove("on");
    if (box) box.remove();
    box = mark = null;
  };
  const over = (event) => {
    const found = event.target instanceof Element ? event.target.closest("[data-tip], .chart .col, .gauge .part") : null;
    if (found !== mark) {
      drop();
      if (found) {
        mark = found;
        mark.classList.add("on");
        // Our box takes the place of the browser's own.
        all(mark, "title").forEach((one) => one.remove());
        box = tipFor(mark.matches(".part") ? `${mark.dataset.name}\n${mark.dataset.value}` : words(mark));
        document.body.append(box);
      }
    }
    if (box) place(event.clientX, event.clientY);
  };
  document.addEventListener("pointermove", over, { passive: true });
  document.addEventListener("pointerdown", over, { passive: true });
  document.addEventListener("pointerleave", drop);
  addEventListener("scroll", drop, { passive: true });

  // --- Comforts.
  const copied = async (one, text) => {
    try { await navigator.clipboard.writeText(text); } catch { return; }
    const said = one.textContent;
    one.textContent = "copied";
    setTimeout(() => { one.textContent = said; }, 1200);
  };
  document.addEventListener("click", (event) => {
    const target = event.target instanceof Element ? event.target : null;
    if (!target) return;
    if (target.closest("[data-theme-toggle]")) nextTheme();
    const command = target.closest("[data-copy]");
    if (command) copied(command, command.textContent);
    const link = target.closest("[data-copy-url]");
    if (link && navigator.clipboard) { event.preventDefault(); copied(link, new URL(link.href, location.href).href); }
    all(document, "details.pick[open]").forEach((one) => { if (!one.contains(target)) one.open = false; });
  });
  document.addEventListener("change", (event) => {
    // A choice that stands alone needs no button.
    if (event.target.matches("select[data-auto]")) event.target.form.requestSubmit();
  });
  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (form.method !== "get") {
      if (form.dataset.confirm && !confirm(form.dataset.confirm)) event.preventDefault();
      return;
    }
    // Empty fields do not belong into an address.
    all(form, "input, select").forEach((one) => { if (!one.value) one.disabled = true; });
    setTimeout(() => all(form, "input, select").forEach((one) => { one.disabled = false; }));
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") { drop(); all(document, "details[open]").forEach((one) => { one.open = false; }); }
  });

  const begin = () => { paint(kept()); listen(); setInterval(age, 100); };
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", begin);
  else begin();
})();
