/** How long a lock in the storage lasts at most: its tab may be gone. */
const leaseTime = 10_000;
const sleep = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));
/** Runs the work while no other tab does: by a Web Lock, or by a lease in the storage where there are none, as on pages without TLS. */
export function lock(name, storage, work) {
    if (typeof navigator !== "undefined" && navigator.locks)
        return navigator.locks.request(name, work);
    return lease(name, storage, work);
}
async function lease(name, storage, work) {
    const owner = Math.random().toString(36).slice(2);
    const isOurs = () => storage.getItem(name)?.startsWith(`${owner} `) ?? false;
    while (!isOurs()) {
        const until = Number(storage.getItem(name)?.split(" ")[1] ?? 0);
        if (until < Date.now() || until > Date.now() + leaseTime)
            storage.setItem(name, `${owner} ${Date.now() + leaseTime}`);
        await sleep(20 + Math.random() * 30); // a tab that wrote at the same time has written by then
    }
    try {
        return await work();
    }
    finally {
        if (isOurs())
            storage.removeItem(name);
    }
}
