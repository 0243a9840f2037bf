// The explorer in a notebook: requests are messages to the kernel.
export default {
  render({ model, el }) {
    const waiting = new Map();
    model.on("msg:custom", ({ id, header }, [data]) => waiting.get(id)?.(header && [header, new Uint8Array(data.buffer, data.byteOffset, data.byteLength).slice().buffer]));
    async function* ask(request, body, signal) {
      const id = String(Math.random()), end = () => waiting.get(id)?.();
      const answers = new ReadableStream({ start: to => { waiting.set(id, message => message ? to.enqueue(message) : waiting.delete(id) && to.close()); } }).getReader();
      signal?.addEventListener("abort", () => { model.send({ id, gone: true }); end(); });
      model.send({ id, request }, undefined, body ? [await new Blob([body]).arrayBuffer()] : []);
      try {
        for (let found; !(found = await answers.read()).done;) {
          if (found.value[0].refused) throw new Error(found.value[0].refused);
          yield found.value;
        }
      } finally { end(); }
    }
    el.classList.add("explorer");
    el.innerHTML = MARKUP;
    mount(el, ask);
  },
};
