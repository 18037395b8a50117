// Search without a server: browsers refuse workers in pages that are opened from a folder. There, a
// worker is a hidden frame that runs the same script. (The theme would load such code from a CDN.)
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      document.body.appendChild(frame);
      this.scope = frame.contentWindow;
      // What the script of a worker calls: importScripts and postMessage.
      this.scope.importScripts = (...urls) =>
        urls.reduce((last, each) => last.then(() => this.load(each)), Promise.resolve());
      this.scope.postMessage = (data) => {
        const event = new MessageEvent("message", { data });
        this.dispatchEvent(event);
        if (this.onmessage) this.onmessage(event);
      };
      this.loaded = this.load(url);
    }

    load(url) {
      return new Promise((resolve) => {
        const script = this.scope.document.createElement("script");
        script.src = new URL(url, location.href).href;
        script.onload = resolve;
        this.scope.document.body.appendChild(script);
      });
    }

    postMessage(data) {
      this.loaded.then(() => this.scope.dispatchEvent(new MessageEvent("message", { data })));
    }

    terminate() {}
  };
}
