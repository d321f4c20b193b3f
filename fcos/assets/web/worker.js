// Runs the ONNX file by onnxruntime-web away from the page, which stays quick.
"use strict";
if (typeof Fcos === "undefined") importScripts("core.js");
let ort, session, about;

async function load(message) {
  // the script of a page from disk can only be imported by the one who made its URL
  ort = await import(message.script ? URL.createObjectURL(new Blob([message.script], { type: "text/javascript" })) : message.ort);
  ort.env.wasm.numThreads = message.threads;
  ort.env.wasm.wasmBinary = message.wasm;
  ort.env.logLevel = "error";
  about = message.about;
  session = await ort.InferenceSession.create(message.model, { executionProviders: ["wasm"] });
}

async function detect(image) {
  const begun = performance.now();
  const ready = Fcos.prepare(image, about);
  const kind = ready.input instanceof Float32Array ? "float32" : "uint8";
  const input = new ort.Tensor(kind, ready.input, [1, 3, ready.height, ready.width]);
  const prepared = performance.now();
  const out = await session.run({ images: input });
  const computed = performance.now();
  const said = { logits: out.logits.data, distances: out.distances.data, centerness: out.centerness.data };
  const story = Fcos.tell(said, ready, image, about);
  const seconds = { prepare: prepared - begun, network: computed - prepared, decode: performance.now() - computed };
  for (const part of Object.keys(seconds)) seconds[part] /= 1000;
  return { ...story, seconds };
}

let turn = Promise.resolve(); // one at a time, in order
self.onmessage = ({ data }) => {
  turn = turn.then(async () => {
    try {
      const result = data.kind === "load" ? await load(data) : await detect(data.image);
      self.postMessage({ id: data.id, result });
    } catch (error) {
      self.postMessage({ id: data.id, error: String(error.message || error).split("\n")[0] });
    }
  });
};
