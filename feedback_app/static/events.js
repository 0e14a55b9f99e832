// Gradio's events: none is lost, and what was asked for last is what a page shows.
(() => {
  "use strict";
  const plainFetch = window.fetch.bind(window);
  // What Gradio sends for an output that stays as it is.
  const NOTHING = { __type__: "update" };
  const isNothing = (value) =>
    value?.__type__ === "update" && Object.keys(value).every((key) => ["__type__", "props"].includes(key));

  let clock = 0;
  const shown = new Map(); // component → who showed it last: when that was asked for, when it came, whether it only looked
  const eventOf = ({ body }) => {
    const { fn_index: id } = JSON.parse(body);
    return window.gradio_config.dependencies.find((one) => one.id === id);
  };
  // wiring.LOOK and wiring.SLOW_LOOK; everything else is something that a person did.
  const looks = (event) => event.trigger_mode === "always_last";

  /** The outputs of an event that come now, without those that a look has for what was asked for later. */
  const inOrder = (event, asked, data) => {
    const came = ++clock;
    return data.map((value, place) => {
      const id = event.outputs[place];
      if (isNothing(value)) return value;
      if (looks(event) && shown.get(id)?.asked > asked) return NOTHING;
      shown.set(id, { asked, came, looked: looks(event) });
      return value;
    });
  };

  /** An event outside the queue. A look that was under way while something was done looks again. */
  const run = async (event, args) => {
    const asked = ++clock;
    for (;;) {
      const begun = ++clock;
      const response = await plainFetch(...args);
      if (!response.ok || !looks(event)) return response;
      const overtaken = event.outputs.some((id) => {
        const last = shown.get(id);
        return last && !last.looked && last.asked < asked && last.came > begun;
      });
      if (overtaken) continue;
      const answer = await response.json();
      answer.data = inOrder(event, asked, answer.data);
      return Response.json(answer);
    }
  };

  const joins = new Set(); // requests under way that put an event into the queue
  const running = new Map(); // events in the queue that have not ended: id → the event, and when it was asked for
  const join = async (event, args) => {
    const asked = ++clock;
    const response = await plainFetch(...args);
    if (response.ok) running.set((await response.clone().json()).event_id, { event, asked });
    return response;
  };

  const blocksOf = async function* (body) {
    const reader = body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const blocks = (rest + value).split("\n\n");
      rest = blocks.pop();
      yield* blocks;
    }
  };
  const noted = (message) => {
    const { event, asked } = running.get(message.event_id) ?? {};
    if (message.msg === "process_completed" && event) {
      running.delete(message.event_id);
      const { output, success } = message;
      if (success && Array.isArray(output?.data)) output.data = inOrder(event, asked, output.data);
    }
    if (!message.event_id && message.msg !== "heartbeat") running.clear(); // the server stopped, or knows the page no more
    return message;
  };
  /**
   * What the queue says. The server closes the stream when nothing is left to be done; what a page asks for before it
   * hears of that would never be answered, as Gradio's client still counts on the stream: it is listened to on another.
   */
  const messages = async function* (response, again) {
    const last = { msg: "close_stream" };
    for (; response.ok; response = await again()) {
      let more = false;
      for await (const block of blocksOf(response.body)) {
        const message = JSON.parse(block.slice("data:".length));
        if (message.msg !== last.msg) {
          yield noted(message);
          continue;
        }
        while (joins.size) await Promise.allSettled(joins);
        more = running.size > 0;
        if (more) break;
        yield last;
        return;
      }
      if (!more) return;
    }
    running.clear();
    yield last;
  };
  const listen = async (args) => {
    const response = await plainFetch(...args);
    if (!response.ok) return response;
    const told = messages(response, () => plainFetch(...args));
    const bytes = new TextEncoder();
    const body = new ReadableStream({
      async pull(controller) {
        const { done, value } = await told.next();
        if (done) controller.close();
        else controller.enqueue(bytes.encode(`data: ${JSON.stringify(value)}\n\n`));
      },
    });
    return new Response(body, { status: response.status, headers: response.headers });
  };

  window.fetch = (...args) => {
    const path = new URL(args[0].url ?? args[0], location.href).pathname;
    if (path.endsWith("/gradio_api/queue/data")) return listen(args);
    if (path.includes("/gradio_api/run/")) return run(eventOf(args[1]), args);
    if (!path.endsWith("/gradio_api/queue/join")) return plainFetch(...args);
    const joined = join(eventOf(args[1]), args);
    joins.add(joined);
    joined.finally(() => joins.delete(joined)).catch(() => {});
    return joined;
  };
})();
