// The page: images in, boxes over them, and the story of each box. It asks the server, or runs the network itself.
"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const packed = $("packed-about"); // a page that is one file carries the network inside
  const state = {
    images: [], now: -1, score: 0.5, off: new Set(), chosen: null, map: { kind: "", level: 0 },
    view: { scale: 1, x: 0, y: 0 }, models: [], camera: null, turn: 0,
  };
  let token = sessionStorageGet("fcos-token");

  function sessionStorageGet(key) {
    try {
      return sessionStorage.getItem(key);
    } catch {
      return null; // a file from disk may have none
    }
  }

  function say(text, wrong = false) {
    $("status").textContent = text;
    $("status").classList.toggle("wrong", wrong);
  }

  const make = (tag, properties = {}, ...inside) => {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...inside);
    return element;
  };

  // Fill `there` anew. The control that had the focus, by its place, has it afterwards: hands on keys stay where they are.
  function refill(there, ...children) {
    const controls = () => [...there.querySelectorAll("input, button")], at = controls().indexOf(document.activeElement);
    there.replaceChildren(...children);
    if (at >= 0) controls().slice(0, at + 1).at(-1)?.focus({ preventScroll: true });
  }

  // A long name cut in its middle, as plots write it.
  function short(name) {
    const signs = [...name];
    return signs.length > 22 ? `${signs.slice(0, 10).join("")}…${signs.slice(-11).join("")}` : name;
  }

  // Hues by the golden angle; classes whose hues come near each other differ in lightness.
  const hue = (label) => (label * 137.508 + 210) % 360, light = (label) => [56, 42, 72][label % 3];
  const color = (label) => `hsl(${hue(label)} 85% ${light(label)}%)`;
  // What is read on that colour: white on dark blue, violet and red, nearly black on the rest.
  const ink = (label) => (light(label) < 50 && (hue(label) > 200 || hue(label) < 20) ? "#fff" : "#0b0d10");

  // ------------------------------------------------------------------ asking the server

  async function ask(path, options = {}) {
    const headers = { ...(options.headers || {}), ...(token ? { Authorization: `Bearer ${token}` } : {}) };
    const answer = await fetch(path, { ...options, headers }).catch(() => {
      throw new Error("the server does not answer; is fcos serve still running?");
    });
    if (answer.status === 401) {
      token = prompt("This server wants a token:");
      if (!token) throw new Error("no token, no detections");
      try {
        sessionStorage.setItem("fcos-token", token);
      } catch { /* kept until the page closes */ }
      return ask(path, options);
    }
    if (!answer.ok) {
      let line = `the server answered ${answer.status}`;
      try {
        line = (await answer.json()).error || line;
      } catch { /* no JSON */ }
      throw new Error(line);
    }
    return answer;
  }

  const model = () => state.models[Math.max($("model").selectedIndex, 0)];

  async function fromServer(blob) {
    const query = `model=${encodeURIComponent(model().name)}&score=0`;
    const headers = { "Content-Type": blob.type.startsWith("image/") ? blob.type : "application/octet-stream" };
    const answer = await (await ask(`predict?${query}`, { method: "POST", body: blob, headers })).json();
    return answer.results[0];
  }

  async function explained(blob) {
    const query = `model=${encodeURIComponent(model().name)}&score=0`;
    const headers = { "Content-Type": blob.type.startsWith("image/") ? blob.type : "application/octet-stream" };
    const story = await (await ask(`explain?${query}`, { method: "POST", body: blob, headers })).json();
    story.maps = await Promise.all(story.maps.map(async (map) => {
      const [best, centre] = await Promise.all([grey(map.class), grey(map.centerness)]);
      return { ...map, width: best.width, height: best.height, class: best.values, centerness: centre.values };
    }));
    return story;
  }

  async function grey(url) {
    const bitmap = await createImageBitmap(await (await fetch(url)).blob());
    const pixels = pixelsOf(bitmap);
    const values = new Uint8ClampedArray(bitmap.width * bitmap.height);
    for (let i = 0; i < values.length; i++) values[i] = pixels.data[4 * i];
    return { width: bitmap.width, height: bitmap.height, values };
  }

  // ------------------------------------------------------------------ running the network here

  const engines = new Map(); // by name of the model: a promise of {detect}

  async function unpack(element, type, zipped) {
    const stream = (await fetch(`data:application/octet-stream;base64,${element.textContent.trim()}`)).body;
    const plain = zipped ? stream.pipeThrough(new DecompressionStream("gzip")) : stream;
    const blob = await new Response(plain, { headers: { "Content-Type": type } }).blob();
    return blob;
  }

  async function parts() {
    if (!packed) {
      const name = model().name;
      const base = `models/${encodeURIComponent(name)}`;
      say("loading the network into this browser (the first time the server has to write it)");
      const [about, onnx, wasm] = await Promise.all([
        ask(`${base}/about.json`).then((a) => a.json()),
        ask(`${base}/model.onnx`).then((a) => a.arrayBuffer()),
        fetch("web/ort.wasm").then((a) => a.arrayBuffer()),
      ]);
      const threads = self.crossOriginIsolated ? Math.min(4, Math.max(1, navigator.hardwareConcurrency || 1)) : 1;
      const ort = new URL("web/ort.mjs", location.href).href;
      return { worker: new Worker("web/worker.js"), about, model: onnx, wasm, threads, ort };
    }
    say("unpacking the network");
    const [script, wasm, onnx] = await Promise.all([
      unpack($("packed-ort"), "text/javascript", true).then((blob) => blob.text()),
      unpack($("packed-wasm"), "application/wasm", true).then((blob) => blob.arrayBuffer()),
      unpack($("packed-model"), "application/octet-stream", false).then((blob) => blob.arrayBuffer()),
    ]);
    const source = [$("core-source").textContent, "\n", $("worker-source").textContent];
    const worker = new Worker(URL.createObjectURL(new Blob(source, { type: "text/javascript" })));
    return { worker, about: JSON.parse(packed.textContent), model: onnx, wasm, threads: 1, script };
  }

  async function start() {
    const { worker, ...load } = await parts();
    const waiting = new Map();
    let number = 0;
    worker.onmessage = ({ data }) => {
      const { resolve, reject } = waiting.get(data.id);
      waiting.delete(data.id);
      if (data.error) reject(new Error(data.error));
      else resolve(data.result);
    };
    worker.onerror = (event) => {
      for (const { reject } of waiting.values()) reject(new Error(event.message || "the network cannot be started here"));
      waiting.clear();
    };
    const send = (message, transfer = []) => new Promise((resolve, reject) => {
      waiting.set(++number, { resolve, reject });
      worker.postMessage({ ...message, id: number }, transfer);
    });
    await send({ kind: "load", ...load }, [load.model, load.wasm]);
    say("");
    return { threads: load.threads, detect: (image) => send({ kind: "detect", image }, [image.data.buffer]) };
  }

  function engine() {
    const name = model().name;
    if (!engines.has(name)) {
      const promise = start();
      promise.catch(() => engines.delete(name));
      engines.set(name, promise);
    }
    return engines.get(name);
  }

  const local = () => Boolean(packed) || $("local").checked;

  // Pixels {data, width, height} as displayed: turned upright, transparency over white, colours as they are stored.
  function pixelsOf(bitmap, width = bitmap.width, height = bitmap.height) {
    const canvas = new OffscreenCanvas(width, height);
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.fillStyle = "#fff";
    context.fillRect(0, 0, width, height);
    context.drawImage(bitmap, 0, 0, width, height);
    return context.getImageData(0, 0, width, height);
  }

  const bitmapOf = (blob) => createImageBitmap(blob, { imageOrientation: "from-image", colorSpaceConversion: "none" });

  async function here(image) {
    const { data, width, height } = image;
    return (await engine()).detect({ data, width, height });
  }

  // ------------------------------------------------------------------ images

  async function add(files) {
    const images = [...files].filter((file) => file.type.startsWith("image/") || /\.(tiff?|bmp|webp|avif)$/i.test(file.name));
    if (!images.length) return say("there is no image among these", true);
    stopCamera();
    const first = state.images.length, others = [...files].filter((file) => !images.includes(file));
    for (const file of images) state.images.push({ blob: file, name: file.name || "pasted", bitmap: null, found: null });
    if (others.length) {
      const more = others.length > 1 ? ` and ${others.length - 1} more` : "";
      state.images[first].beside = `; left out, as no image: ${short(others[0].name)}${more}`;
    }
    strip();
    return show(first);
  }

  async function show(index) {
    if (index < 0 || index >= state.images.length) return;
    state.now = index;
    state.chosen = null;
    const image = state.images[index], seen = () => image === current();
    $("empty").hidden = true;
    panel(); // of this image from now on, not of the one before
    try {
      image.bitmap ??= await bitmapOf(image.blob).catch(() => {
        throw new Error("this browser cannot show it as an image");
      });
      if (seen()) fit();
      render();
      await detect(image);
      if (seen() && state.map.kind) await story();
    } catch (error) {
      if (seen()) say(`${short(image.name)}: ${error.message}`, true);
    }
    strip();
    panel();
  }

  async function detect(image) {
    const key = `${model().name}/${local()}`, turn = ++state.turn;
    if (image.key === key) return say(lineOf(image));
    say("detecting");
    const begun = performance.now();
    const found = local() ? await here(pixelsOf(image.bitmap)) : await fromServer(image.blob);
    const took = Math.round(performance.now() - begun);
    const threads = local() ? (await engine()).threads : 0;
    const place = threads ? `in this browser, ${threads === 1 ? "one thread" : `${threads} threads`}` : "by the server";
    const line = `${short(image.name)}: ${found.width} × ${found.height}, ${took} ms ${place}`;
    Object.assign(image, { found, key, line });
    if (turn === state.turn) say(lineOf(image));
  }

  function lineOf(image) {
    const some = image.found.detections.some((d) => d.score >= state.score);
    return `${image.line}${some ? "" : `, nothing from score ${state.score.toFixed(2)} on`}${image.beside || ""}`;
  }

  const current = () => (state.camera ? state.camera : state.images[state.now]);
  const shown = () => (current()?.found?.detections || []).filter((d) => d.score >= state.score && !state.off.has(d.class));

  // The explain view of the server comes when it is asked for.
  async function story() {
    const image = current();
    if (!image?.found || image.found.maps || state.camera) return;
    const key = image.key, told = await explained(image.blob);
    if (image.key !== key) return; // another model has looked at it since
    image.found = told;
    if (image !== current()) return;
    const before = state.chosen;
    if (before) {
      const apart = (d) => d.box.reduce((sum, v, i) => sum + Math.abs(v - before.box[i]), 0) + (d.class === before.class ? 0 : 1e9);
      state.chosen = told.detections.reduce((a, b) => (apart(a) <= apart(b) ? a : b), told.detections[0] || null);
    }
    panel();
  }

  // ------------------------------------------------------------------ drawing

  const canvas = $("canvas"), context = canvas.getContext("2d");

  function fit() {
    const image = current();
    if (!image?.bitmap) return;
    const { clientWidth: w, clientHeight: h } = canvas;
    const scale = Math.min(w / image.bitmap.width, h / image.bitmap.height) * 0.98;
    state.view = { scale, x: (w - image.bitmap.width * scale) / 2, y: (h - image.bitmap.height * scale) / 2 };
  }

  function zoom(factor, x = canvas.clientWidth / 2, y = canvas.clientHeight / 2) {
    const view = state.view, scale = Math.min(Math.max(view.scale * factor, 0.02), 60);
    const change = scale / view.scale;
    state.view = { scale, x: x - (x - view.x) * change, y: y - (y - view.y) * change };
    render();
  }

  let asked = false;
  function render() {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => {
      asked = false;
      draw();
    });
  }

  function draw() {
    const ratio = devicePixelRatio || 1, { clientWidth: w, clientHeight: h } = canvas;
    if (canvas.width !== Math.round(w * ratio) || canvas.height !== Math.round(h * ratio)) {
      canvas.width = Math.round(w * ratio);
      canvas.height = Math.round(h * ratio);
    }
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, w, h);
    const image = current();
    if (!image?.bitmap) return;
    const { scale, x, y } = state.view, { bitmap } = image;
    context.imageSmoothingEnabled = scale < 4;
    context.drawImage(bitmap, x, y, bitmap.width * scale, bitmap.height * scale);
    heat(image, scale, x, y);
    const boxes = shown(), large = Math.max(13, Math.min(17, w / 50));
    context.font = `600 ${large}px system-ui, sans-serif`;
    context.textBaseline = "top";
    if (state.chosen?.location && boxes.includes(state.chosen)) anatomy(state.chosen, scale, x, y);
    for (const d of [...boxes].reverse()) {
      const chosen = d === state.chosen;
      const [x1, y1, x2, y2] = d.box.map((v, i) => v * scale + (i % 2 ? y : x));
      if (x2 < 0 || y2 < 0 || x1 > w || y1 > h) continue; // its tag would be drawn for nothing to be seen
      context.globalAlpha = state.chosen && !chosen ? 0.35 : 1;
      context.lineWidth = chosen ? 4 : 2.5;
      context.strokeStyle = color(d.class);
      context.strokeRect(x1, y1, x2 - x1, y2 - y1);
      const text = `${short(d.label)} ${d.score.toFixed(2)}`, wide = context.measureText(text).width + 8;
      const top = Math.min(Math.max(y1 - large - 6, y > 0 ? y - large - 6 : 0), y2);
      const left = Math.max(Math.min(x1 - 1, w - wide), 0);
      context.fillStyle = color(d.class);
      context.fillRect(left, Math.max(top, 0), wide, large + 5);
      context.fillStyle = ink(d.class);
      context.fillText(text, left + 4, Math.max(top, 0) + 3);
    }
    context.globalAlpha = 1;
  }

  // The location that fired, its distances to the four sides, and what it silenced.
  function anatomy(d, scale, x, y) {
    const at = (px, py) => [px * scale + x, py * scale + y];
    const [cx, cy] = at(...d.location), [l, t, r, b] = d.distances.map((v) => v * scale);
    context.setLineDash([5, 4]);
    context.lineWidth = 1.2;
    context.strokeStyle = "#ffffffb0";
    for (const s of d.silenced.slice(0, 8)) { // the best; more would hide the image
      const [x1, y1] = at(s.box[0], s.box[1]), [x2, y2] = at(s.box[2], s.box[3]);
      context.strokeRect(x1, y1, x2 - x1, y2 - y1);
    }
    context.setLineDash([]);
    for (const [ex, ey] of [[cx - l, cy], [cx + r, cy], [cx, cy - t], [cx, cy + b]]) {
      for (const [wide, ink] of [[4, "#000a"], [2, "#fff"]]) {
        context.lineWidth = wide;
        context.strokeStyle = ink;
        context.beginPath();
        context.moveTo(cx, cy);
        context.lineTo(ex, ey);
        context.stroke();
      }
    }
    context.beginPath();
    context.arc(cx, cy, 6, 0, 7);
    context.fillStyle = color(d.class);
    context.fill();
    context.lineWidth = 2.5;
    context.strokeStyle = "#fff";
    context.stroke();
  }

  // Dark blue, green, yellow: the ends and middle of viridis, which keeps its order in grey and for the colour-blind.
  const RAMP = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]];

  // The higher a value the less the image shows through: where a level says nothing the image stays as it is. A map is as
  // large as its cells, and is cut at the image.
  function heat(image, scale, x, y) {
    const map = state.map.kind && image.found?.maps?.[state.map.level];
    if (!map) return;
    const pixels = new ImageData(map.width, map.height), values = map[state.map.kind];
    for (let i = 0; i < values.length; i++) {
      const v = (values[i] / 255) * (RAMP.length - 1), k = Math.min(Math.floor(v), RAMP.length - 2), part = v - k;
      for (let c = 0; c < 3; c++) pixels.data[4 * i + c] = RAMP[k][c] * (1 - part) + RAMP[k + 1][c] * part;
      pixels.data[4 * i + 3] = 70 + 150 * Math.sqrt(values[i] / 255);
    }
    const small = new OffscreenCanvas(map.width, map.height);
    small.getContext("2d").putImageData(pixels, 0, 0);
    context.imageSmoothingEnabled = false;
    context.save();
    context.beginPath();
    context.rect(x, y, image.bitmap.width * scale, image.bitmap.height * scale);
    context.clip();
    context.drawImage(small, x, y, map.extent[0] * scale, map.extent[1] * scale);
    context.restore();
  }

  // ------------------------------------------------------------------ the panel

  // Names by label: of what was found, or all of the model's before anything was.
  function known(keep = () => true) {
    const found = current()?.found;
    return new Map(found ? found.detections.filter(keep).map((d) => [d.class, d.label])
      : (model()?.classes || []).map((name, label) => [label, name]));
  }

  function panel() {
    const found = current()?.found, all = found?.detections || [], boxes = shown();
    if (state.chosen && !boxes.includes(state.chosen)) state.chosen = null;
    const names = known((d) => d.score >= state.score || state.off.has(d.class));
    refill($("classes"), ...[...names].sort((a, b) => a[1].localeCompare(b[1])).map(([label, name]) => {
      const box = make("input", { type: "checkbox", checked: !state.off.has(label) });
      box.onchange = () => {
        if (box.checked) state.off.delete(label);
        else state.off.add(label);
        panel();
      };
      const dot = make("span", { className: "dot" });
      dot.style.background = color(label);
      const count = found ? all.filter((d) => d.class === label && d.score >= state.score).length : "";
      return make("label", {}, box, dot, name, make("span", { className: "number", textContent: count }));
    }));
    $("count").textContent = found ? `(${boxes.length} of ${all.length}${boxes.length > 100 ? ", the first 100" : ""})` : "";
    refill($("list"), ...boxes.slice(0, 100).map((d) => {
      const dot = make("span", { className: "dot" });
      dot.style.background = color(d.class);
      const button = make("button", { onclick: () => choose(d) }, dot, d.label,
        make("span", { className: "number", textContent: d.score.toFixed(3) }));
      button.setAttribute("aria-current", d === state.chosen);
      return make("li", {}, button);
    }));
    const levels = found?.maps?.map((map) => map.level) || [];
    if (levels.join() !== [...$("map-level").options].map((o) => o.text).join()) {
      $("map-level").replaceChildren(...levels.map((level, i) => make("option", { textContent: level, value: i })));
      state.map.level = Math.min(state.map.level, Math.max(levels.length - 1, 0));
    }
    $("map-level").selectedIndex = state.map.level;
    $("map-level").hidden = !levels.length || !state.map.kind;
    tale();
    render();
  }

  function tale() {
    const d = state.chosen, there = $("story");
    there.hidden = !d?.location;
    if (there.hidden) return;
    const px = (values) => values.map((v) => v.toFixed(0)).join(", ");
    const rows = [
      ["score", d.score.toFixed(4)], ["class probability", d.probability.toFixed(4)], ["centerness", d.centerness.toFixed(4)],
      ["level", d.level], ["location", `${px(d.location)} px`], ["left, top, right, bottom", `${px(d.distances)} px`],
      ["box", `${px(d.box)} px`],
      ["dropped by NMS", d.silenced.length ? `${d.silenced.length}, the best ${d.silenced[0].score.toFixed(3)}` : "nothing"],
    ];
    there.replaceChildren(make("h2", { textContent: d.label }), make("table", {}, ...rows.map(([name, value]) =>
      make("tr", {}, make("th", { textContent: name, scope: "row" }), make("td", { textContent: value })))));
  }

  async function choose(d) {
    state.chosen = d === state.chosen ? null : d;
    panel();
    if (!state.chosen) return;
    try {
      await story();
      $("story").scrollIntoView({ block: "nearest" });
    } catch (error) {
      say(error.message, true);
    }
  }

  function score(value) {
    state.score = Math.min(Math.max(Number(value), 0), 1);
    $("score").value = state.score;
    $("score-shown").textContent = state.score.toFixed(2);
    const image = state.camera ? null : current();
    if (image?.found && $("status").textContent.startsWith(image.line)) say(lineOf(image));
    panel();
  }

  function strip() {
    if (state.images.length < 2) return;
    state.images.forEach((image, i) => {
      if (!image.thumb) {
        const picture = make("img", { src: URL.createObjectURL(image.blob), alt: image.name, loading: "lazy" });
        image.thumb = make("button", { title: image.name, onclick: () => show(i) }, picture);
        $("strip").append(image.thumb);
      }
      image.thumb.setAttribute("aria-current", i === state.now);
    });
    state.images[state.now]?.thumb.scrollIntoView({ block: "nearest", inline: "nearest" });
  }

  // The level to look at first: that of the chosen box, or of the best.
  function telling() {
    const { maps = [], detections = [] } = current()?.found || {};
    const level = (state.chosen || detections[0])?.level;
    return Math.max(maps.findIndex((map) => map.level === level), 0);
  }

  async function heatMap(kind, level) {
    const began = kind && !state.map.kind;
    state.map = { kind, level: level ?? state.map.level };
    $("map-kind").value = kind;
    panel();
    if (!kind) return;
    try {
      await story();
      if (began) state.map.level = telling();
      panel();
    } catch (error) {
      say(error.message, true);
    }
  }

  // ------------------------------------------------------------------ camera

  async function camera() {
    if (state.camera) return stopCamera();
    if (!navigator.mediaDevices) {  // of pages over http from another computer
      return say("no camera: browsers give it only to pages of https or of localhost. Open images instead.", true);
    }
    try {
      const stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment", width: 640 } });
      const video = $("video");
      video.srcObject = stream;
      await video.play();
      state.camera = { name: "camera", stream, bitmap: null, found: null };
    } catch (error) {
      return say(`no camera: ${error.message}`, true);
    }
    $("camera").setAttribute("aria-pressed", true);
    $("empty").hidden = true;
    state.chosen = null;
    return frames(state.camera);
  }

  function jpegOf(bitmap) {
    const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
    canvas.getContext("2d").drawImage(bitmap, 0, 0);
    return canvas.convertToBlob({ type: "image/jpeg", quality: 0.9 });
  }

  async function frames(mine) {
    const video = $("video");
    let rate = 0, before = performance.now();
    while (state.camera === mine) {
      try {
        const bitmap = await createImageBitmap(video);
        const found = local() ? await here(pixelsOf(bitmap)) : await fromServer(await jpegOf(bitmap));
        if (state.camera !== mine) return;
        const first = !mine.bitmap;
        Object.assign(mine, { bitmap, found });
        state.chosen = null;
        if (first) fit();
        const now = performance.now();
        rate = rate ? 0.8 * rate + 0.2 * (1000 / (now - before)) : 1000 / (now - before);
        before = now;
        mine.rate = rate;
        say(`camera: ${rate.toFixed(1)} frames a second`);
        panel();
      } catch (error) {
        stopCamera();
        return say(error.message, true);
      }
    }
  }

  function stopCamera() {
    if (!state.camera) return;
    for (const track of state.camera.stream.getTracks()) track.stop();
    state.camera = null;
    $("camera").setAttribute("aria-pressed", false);
    say("");
    $("empty").hidden = state.now >= 0;
    panel();
  }

  // ------------------------------------------------------------------ hands

  async function walk(entry) {
    if (entry.isFile) return [await new Promise((done, fail) => entry.file(done, fail))];
    const reader = entry.createReader(), all = [];
    for (;;) {
      const some = await new Promise((done, fail) => reader.readEntries(done, fail));
      if (!some.length) break;
      for (const one of some) all.push(...(await walk(one)));
    }
    return all;
  }

  addEventListener("dragover", (event) => {
    event.preventDefault();
    $("stage").classList.add("over");
  });
  addEventListener("dragleave", () => $("stage").classList.remove("over"));
  addEventListener("drop", async (event) => {
    event.preventDefault();
    $("stage").classList.remove("over");
    const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
    const files = entries.length ? (await Promise.all(entries.map(walk))).flat() : [...event.dataTransfer.files];
    await add(files);
  });
  addEventListener("paste", (event) => {
    if (event.clipboardData?.files.length) add(event.clipboardData.files);
  });

  const pointers = new Map();
  let moved = 0;
  const place = (event) => {
    const area = canvas.getBoundingClientRect();
    return [event.clientX - area.left, event.clientY - area.top];
  };
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, place(event));
    moved = pointers.size > 1 ? 99 : 0;
  });
  canvas.addEventListener("pointermove", (event) => {
    const old = pointers.get(event.pointerId);
    if (!old) return;
    const now = place(event);
    if (pointers.size === 1) {
      state.view.x += now[0] - old[0];
      state.view.y += now[1] - old[1];
      moved += Math.abs(now[0] - old[0]) + Math.abs(now[1] - old[1]);
    } else {
      const [other] = [...pointers].filter(([id]) => id !== event.pointerId).map(([, at]) => at);
      const apart = (a) => Math.hypot(a[0] - other[0], a[1] - other[1]);
      zoom(apart(now) / Math.max(apart(old), 1), (now[0] + other[0]) / 2, (now[1] + other[1]) / 2);
    }
    pointers.set(event.pointerId, now);
    render();
  });
  for (const kind of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(kind, (event) => {
      pointers.delete(event.pointerId);
      if (kind === "pointerup" && moved < 6) click(...place(event));
    });
  }
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    zoom(Math.exp(-event.deltaY * (event.ctrlKey ? 0.01 : 0.0015)), ...place(event));
  }, { passive: false });
  canvas.addEventListener("dblclick", () => {
    fit();
    render();
  });

  // The smallest box under the finger.
  function click(px, py) {
    const { scale, x, y } = state.view, at = [(px - x) / scale, (py - y) / scale];
    const under = shown().filter(({ box }) => at[0] >= box[0] && at[0] <= box[2] && at[1] >= box[1] && at[1] <= box[3]);
    const area = ({ box }) => (box[2] - box[0]) * (box[3] - box[1]);
    if (under.length) choose(under.reduce((a, b) => (area(a) <= area(b) ? a : b)));
    else if (state.chosen) choose(state.chosen);
  }

  const step = (by) => {
    const boxes = shown(), at = boxes.indexOf(state.chosen);
    if (boxes.length) choose(boxes[at < 0 ? (by > 0 ? 0 : boxes.length - 1) : (at + by + boxes.length) % boxes.length]);
  };
  const keys = {
    ArrowLeft: () => show(state.now - 1), ArrowRight: () => show(state.now + 1),
    ArrowUp: () => step(-1), ArrowDown: () => step(1),
    "[": () => score(state.score - 0.05), "]": () => score(state.score + 0.05),
    "+": () => zoom(1.25), "=": () => zoom(1.25), "-": () => zoom(0.8), 0: () => { fit(); render(); },
    o: () => $("files").click(), c: camera, Escape: () => state.chosen && choose(state.chosen),
    h: () => heatMap({ "": "class", class: "centerness", centerness: "" }[state.map.kind]),
  };
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, summary")) return;
    const act = keys[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  });

  $("open").onclick = () => $("files").click();
  $("open-folder").onclick = () => $("folder").click();
  $("files").onchange = (event) => add(event.target.files);
  $("folder").onchange = (event) => add(event.target.files);
  $("camera").onclick = camera;
  $("zoom-in").onclick = () => zoom(1.25);
  $("zoom-out").onclick = () => zoom(0.8);
  $("zoom-fit").onclick = () => { fit(); render(); };
  $("score").oninput = (event) => score(event.target.value);
  $("all").onclick = () => { state.off.clear(); panel(); };
  $("none").onclick = () => { for (const label of known().keys()) state.off.add(label); panel(); };
  $("map-kind").onchange = (event) => heatMap(event.target.value);
  $("map-level").onchange = (event) => heatMap(state.map.kind, event.target.selectedIndex);
  $("model").onchange = () => { score(model().shown); again(); };
  $("local").onchange = again;
  addEventListener("resize", () => { fit(); render(); });

  function again() {
    promise();
    if (state.now >= 0 && !state.camera) show(state.now);
  }

  function promise() {
    $("promise").textContent = local()
      ? "Everything is computed in this browser. Images never leave this device."
      : "Images are sent to this server, which keeps none.";
  }

  // ------------------------------------------------------------------ start

  async function begin() {
    if (packed) {
      const about = JSON.parse(packed.textContent);
      state.models = [{ name: document.title, classes: about.classes.names, shown: about.shown }];
      $("model-label").hidden = $("local-label").hidden = true;
      engine().then(() => say("ready, offline"), (error) => say(error.message, true));
    } else {
      state.models = (await (await ask("models")).json()).models;
      $("model").replaceChildren(...state.models.map((m) => make("option", { textContent: m.name })));
      $("model-label").hidden = state.models.length < 2;
      if (state.models.length === 1) document.title = document.querySelector("h1").textContent = model().name;
    }
    promise();
    score(model().shown);
  }

  const ready = begin();
  ready.catch((error) => say(error.message, true));
  // What a program may ask of the page: detections of an image's bytes, all candidates, as `tell` gives them.
  self.fcosPage = {
    ready,
    state,
    add,
    async detect(url) {
      await ready;
      const blob = await (await fetch(url)).blob();
      return local() ? here(pixelsOf(await bitmapOf(blob))) : fromServer(blob);
    },
  };
})();
