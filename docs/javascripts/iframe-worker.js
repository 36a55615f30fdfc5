// Search runs in a worker. Browsers refuse workers to pages opened from a folder, so an iframe takes the worker's place.
if (location.protocol === "file:") {
  window.IFrameWorker = window.Worker = class extends EventTarget {
    constructor(url) {
      super()
      const frame = document.createElement("iframe")
      frame.hidden = true
      document.body.append(frame)
      this.inside = frame.contentWindow
      window.addEventListener("message", event => {
        if (event.source === this.inside) this.dispatchEvent(new MessageEvent("message", { data: event.data }))
      })
      const load = path => new Promise((done, failed) => {
        const script = frame.contentDocument.createElement("script")
        Object.assign(script, { src: new URL(path, location).href, onload: done, onerror: failed })
        frame.contentDocument.body.append(script)
      })
      this.inside.postMessage = data => window.dispatchEvent(
        new MessageEvent("message", { data, source: this.inside })
      )
      this.inside.importScripts = (...paths) => paths.reduce((before, path) => before.then(() => load(path)), Promise.resolve())
      this.ready = load(url)
    }
    postMessage(data) {
      this.ready.then(() => this.inside.dispatchEvent(new MessageEvent("message", { data })))
    }
    terminate() {}
  }
}
