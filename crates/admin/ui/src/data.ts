// What a view shows: read once, read again when something changed that it shows.

import { useCallback, useEffect, useRef, useState } from "preact/hooks";
import { Problem, Unreachable, get, session } from "./api";
import { type Change, connection, onChange } from "./live";

export interface Data<T> {
  value: T | undefined;
  /** Why it cannot be read; what was read before stays. */
  error: Error | undefined;
  reload: () => void;
}

interface Options<T> {
  /** Whether this change concerns what is shown. */
  on?: (change: Change) => boolean;
  /** Milliseconds until it is read again without any change; 0 or nothing: not. */
  every?: (value: T | undefined) => number;
}

/** Changes come in bursts; what is shown is read again this long after the first. */
const CALM = 250;

export function useData<T>(url: string | null, options: Options<T> = {}): Data<T> {
  const [value, setValue] = useState<{ url: string; value: T } | undefined>(undefined);
  const [error, setError] = useState<Error | undefined>(undefined);
  const [round, setRound] = useState(0);
  const reload = useCallback(() => setRound((round) => round + 1), []);
  const current = useRef(options);
  current.current = options;

  useEffect(() => {
    if (url === null) return;
    const abort = new AbortController();
    let timer: ReturnType<typeof setTimeout> | undefined;
    const again = (wait: number) => {
      if (!abort.signal.aborted && wait > 0) timer = setTimeout(reload, wait);
    };
    get<T>(url, abort.signal).then(
      (read) => {
        setValue({ url, value: read });
        setError(undefined);
        again(document.hidden ? 0 : (current.current.every?.(read) ?? 0));
      },
      (reason: Error) => {
        if (abort.signal.aborted) return;
        setError(reason);
        if (reason instanceof Unreachable) again(2_000);
        if (reason instanceof Problem && reason.status === 503) again(5_000);
      },
    );
    return () => {
      abort.abort();
      clearTimeout(timer);
    };
  }, [url, round]);

  useEffect(() => {
    let timer: ReturnType<typeof setTimeout> | undefined;
    const soon = () => {
      timer ??= setTimeout(() => {
        timer = undefined;
        reload();
      }, CALM);
    };
    const stop = onChange((change) => {
      if (change === "everything" || current.current.on?.(change)) soon();
    });
    // What is read by the clock only stands still while nobody looks.
    const looked = () => {
      if (!document.hidden && current.current.every) soon();
    };
    document.addEventListener("visibilitychange", looked);
    return () => {
      stop();
      clearTimeout(timer);
      document.removeEventListener("visibilitychange", looked);
    };
  }, []);

  return { value: value?.url === url ? value?.value : undefined, error, reload };
}

/** A value that is kept while the next page of the same list is read. */
export function useLast<T>(value: T | undefined): T | undefined {
  const last = useRef<T | undefined>(undefined);
  if (value !== undefined) last.current = value;
  return last.current;
}

export { connection, session };
