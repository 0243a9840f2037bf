// The explorer in a notebook: requests are messages to the kernel.
export default {
  async render({ model, el }) {
    const waiting = new Map();
    model.on("msg:custom", ({ id, header }, buffers) => waiting.get(id)?.(header && [header, buffers[0] && new Uint8Array(buffers[0].buffer ?? buffers[0], buffers[0].byteOffset ?? 0, buffers[0].byteLength).slice().buffer]));
    async function* ask(request, body, signal) {
      const id = crypto.randomUUID(), found = [];
      let wake = () => null;
      waiting.set(id, message => { found.push(message); wake(); });
      signal?.addEventListener("abort", () => { model.send({ id, gone: true }); found.push(null); wake(); });
      model.send({ id, request }, undefined, body ? [body instanceof Blob ? await body.arrayBuffer() : body.buffer] : []);
      try {
        for (;;) {
          while (!found.length) await new Promise(resolve => { wake = resolve; });
          const message = found.shift();
          if (!message) return;
          if (message[0].refused) throw new Error(message[0].refused);
          yield message;
        }
      } finally { waiting.delete(id); }
    }
    el.innerHTML = model.get("markup");
    mount(el, ask);
  },
};
