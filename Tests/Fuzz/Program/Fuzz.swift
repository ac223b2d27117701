import Glibc

/// The one that the program is started for. libFuzzer's own `main` goes on from here.
private let target = getenv("PASSHSM_FUZZ_TARGET").flatMap { FuzzTarget.named(String(cString: $0)) }

/// What libFuzzer calls with each input.
@_cdecl("LLVMFuzzerTestOneInput")
func testOneInput(_ start: UnsafePointer<UInt8>, _ count: Int) -> Int32 {
    guard let target else {
        fatalError("PASSHSM_FUZZ_TARGET is none of \(FuzzTarget.all.map(\.name).joined(separator: ", "))")
    }
    do { try target.check(Array(UnsafeBufferPointer(start: start, count: count))) } catch {
        // libFuzzer keeps the input that a process dies of.
        fatalError("\(target): \(error)")
    }
    return 0
}
