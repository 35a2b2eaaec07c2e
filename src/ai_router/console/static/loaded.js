import { useEffect, useRef, useState } from "./vendor/preact-hooks.js";

/** Calls `load(abortSignal)` when `inputs` change. Returns {value, error, loading, again}. The last value stays while
 * the next one is loaded. */
export function useLoaded(load, inputs) {
  const [state, setState] = useState({ value: null, error: null, loading: true });
  const [turn, setTurn] = useState(0);
  const latest = useRef(load);
  latest.current = load;
  useEffect(() => {
    const abort = new AbortController();
    setState((old) => ({ ...old, loading: true }));
    latest.current(abort.signal).then(
      (value) => abort.signal.aborted || setState({ value, error: null, loading: false }),
      (error) => abort.signal.aborted || setState((old) => ({ ...old, error, loading: false })),
    );
    return () => abort.abort();
  }, [...inputs, turn]);
  return { ...state, again: () => setTurn((n) => n + 1) };
}
