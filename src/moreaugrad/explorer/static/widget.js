// The explorer in a notebook: requests are messages to the kernel.
export default {
  render({ model, el }) {
    const waiting = new Map();
    model.on("msg:custom", ({ id, header }, [data]) => waiting.get(id)?.(header && [header, new Uint8Array(data.buffer, data.byteOffset, data.byteLength).slice().buffer]));
    async function* ask(request, body, signal) {
      const id = String(Math.random()), found = [];
      let wake;
      const put = message => { found.push(message); wake?.(); };
      waiting.set(id, put);
      signal?.addEventListener("abort", () => { model.send({ id, gone: true }); put(null); });
      model.send({ id, request }, undefined, body ? [await new Blob([body]).arrayBuffer()] : []);
      try {
        for (;;) {
          while (!found.length) await new Promise(resolve => { wake = resolve; });
          const message = found.shift();
          if (message?.[0].refused) throw new Error(message[0].refused);
          if (!message) return;
          yield message;
        }
      } finally { waiting.delete(id); }
    }
    el.classList.add("explorer");
    el.innerHTML = MARKUP;
    mount(el, ask);
  },
};
