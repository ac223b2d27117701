// swift-tools-version: 6.1
import PackageDescription

/// Every Swift target is built in language mode 6, and a warning is an error.
let swift: [SwiftSetting] = [
    .swiftLanguageMode(.v6),
    .unsafeFlags(["-warnings-as-errors"]),
    .enableUpcomingFeature("ExistentialAny"),
]

let system = Target.Dependency.product(name: "SystemPackage", package: "swift-system")
let logging = Target.Dependency.product(name: "Logging", package: "swift-log")
let httpClient = Target.Dependency.product(name: "AsyncHTTPClient", package: "async-http-client")
let crypto = Target.Dependency.product(name: "Crypto", package: "swift-crypto")
let nio = Target.Dependency.product(name: "NIOCore", package: "swift-nio")
let locks = Target.Dependency.product(name: "NIOConcurrencyHelpers", package: "swift-nio")
let sockets = Target.Dependency.product(name: "NIOPosix", package: "swift-nio")
let http2 = Target.Dependency.product(name: "NIOHTTP2", package: "swift-nio-http2")
let tls = Target.Dependency.product(name: "NIOSSL", package: "swift-nio-ssl")
let httpTypes = Target.Dependency.product(name: "NIOHTTP1", package: "swift-nio")
let arguments = Target.Dependency.product(name: "ArgumentParser", package: "swift-argument-parser")

/// The test targets that `make test-thread` builds, which sets PASSHSM_THREAD_TESTS: the others, and what they need, are
/// left out.
let threadTests = Context.environment["PASSHSM_THREAD_TESTS"]?.split(separator: " ").map(String.init)

/// A module of the product lives in `Sources/PassHSM/<folder>` and is called `HSM<folder>`.
/// The arrows between the modules are ARCHITECTURE.md's; the compiler keeps them.
/// A folder in it may be a module of its own, called `HSM<folder><inner folder>`.
func module(_ folder: String, _ dependencies: [Target.Dependency]) -> Target {
    let excluded = ["Store": ["FORMAT.md"], "Fuse": ["Door"]]
    return .target(
        name: "HSM\(folder.filter { $0 != "/" })", dependencies: dependencies, path: "Sources/PassHSM/\(folder)",
        exclude: excluded[folder] ?? [], swiftSettings: swift)
}

func tests(_ name: String, _ dependencies: [Target.Dependency]) -> Target {
    .testTarget(
        name: name, dependencies: dependencies + (threadTests == nil ? [] : ["ThreadSanitizer"]), path: "Tests/\(name)",
        swiftSettings: swift)
}

/// A library of the tests.
func support(_ name: String, _ dependencies: [Target.Dependency]) -> Target {
    .target(name: name, dependencies: dependencies, path: "Tests/\(name)", swiftSettings: swift)
}

/// The entry points of the fuzz targets: tests that mutate the seeds for a moment, or, for `make fuzz`, which sets
/// PASSHSM_FUZZ, a program of libFuzzer's. Nothing but that program can be linked then.
let fuzzing: Target = {
    let dependencies: [Target.Dependency] = [
        "CLinux", "CChecksum", "HSMCore", "HSMSystem", "HSMStore", "HSMRemotes", "HSMFanotify",
        "HSMControl", httpTypes,
    ]
    if Context.environment["PASSHSM_FUZZ"] == nil {
        return .testTarget(
            name: "FuzzTests", dependencies: dependencies + ["TestSupport"], path: "Tests/Fuzz",
            exclude: ["Corpus", "Program", "README.md"],
            swiftSettings: swift)
    }
    return .executableTarget(
        name: "passhsm-fuzz", dependencies: dependencies, path: "Tests/Fuzz",
        exclude: ["Corpus", "Tests", "README.md"],
        swiftSettings: swift + [.unsafeFlags(["-parse-as-library"])])
}()

let package = Package(
    name: "PassHSM",
    products: [.executable(name: "passhsm", targets: ["passhsm"])],
    dependencies: [
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.0"),
        .package(url: "https://github.com/apple/swift-log", from: "1.16.0"),
        .package(url: "https://github.com/apple/swift-crypto", from: "4.5.0"),
        .package(url: "https://github.com/apple/swift-nio", from: "2.101.0"),
        .package(url: "https://github.com/apple/swift-nio-http2", from: "1.46.0"),
        .package(url: "https://github.com/apple/swift-nio-ssl", from: "2.37.0"),
        .package(url: "https://github.com/apple/swift-system", from: "1.8.0"),
        .package(url: "https://github.com/swift-server/async-http-client", from: "1.37.0"),
    ],
    targets: [
        .systemLibrary(
            name: "CFuse", path: "Sources/CFuse", pkgConfig: "fuse3", providers: [.apt(["libfuse3-dev"])]),
        .systemLibrary(
            name: "CCrypto", path: "Sources/CCrypto", pkgConfig: "libcrypto", providers: [.apt(["libssl-dev"])]),
        .systemLibrary(
            name: "CExpat", path: "Sources/CExpat", pkgConfig: "expat", providers: [.apt(["libexpat1-dev"])]),
        .target(name: "CLinux", path: "Sources/CLinux"),
        .target(name: "CChecksum", path: "Sources/CChecksum"),
        module("Core", [locks]),
        module("System", ["CLinux", system]),
        module("Store", ["CChecksum", "CCrypto", "HSMCore", "HSMSystem", logging]),
        module(
            "Remotes",
            ["CExpat", "HSMCore", "HSMSystem", crypto, httpClient, nio, locks, httpTypes, http2, sockets, tls]),
        module("Import", ["HSMCore", "HSMSystem", "HSMStore", "HSMRemotes"]),
        module("Files", ["CLinux", "HSMCore", "HSMSystem", "HSMStore", logging]),
        module("Fuse/Door", ["CFuse", "CLinux", "HSMCore", "HSMSystem", logging]),
        module("Fuse", ["CLinux", "HSMCore", "HSMSystem", "HSMStore", "HSMFiles", "HSMFuseDoor", locks, logging]),
        module("Fanotify", ["CLinux", "HSMCore", "HSMSystem", "HSMStore", "HSMFiles", logging]),
        module("Control", ["HSMCore", "HSMSystem"]),
        module(
            "Daemon",
            [
                "CLinux", "HSMCore", "HSMSystem", "HSMStore", "HSMRemotes", "HSMImport",
                "HSMFuse", "HSMFanotify", "HSMControl", logging,
            ]),
        module("Diagnostics", ["HSMSystem", "HSMFuseDoor", "HSMFanotify", "HSMControl"]),
        .executableTarget(
            name: "passhsm",
            dependencies: [
                "HSMCore", "HSMSystem", "HSMStore", "HSMRemotes", "HSMImport", "HSMFuse", "HSMControl", "HSMDaemon",
                "HSMDiagnostics", arguments, logging,
            ],
            path: "Sources/PassHSM/CLI", swiftSettings: swift),
        // The latency loops that `make bench` runs on every subject.
        .executableTarget(
            name: "bench-driver", dependencies: ["HSMSystem"], path: "bench/driver", swiftSettings: swift),
        // The program that HostileUserTests run as another user.
        .executableTarget(name: "hostile-user", path: "Tests/HostileUser", cSettings: [.define("_GNU_SOURCE")]),
        support("FaultServers", []),
        // What the tests share; the second is apart, so that the first needs little.
        support("TestSupport", ["HSMCore", "HSMSystem"]),
        support("StoreTestSupport", ["TestSupport", "HSMStore", "HSMCore", "HSMSystem", logging]),
        tests("CoreTests", ["TestSupport", "HSMCore"]),
        tests("DocumentTests", []),
        tests("SystemTests", ["TestSupport", "HSMSystem"]),
        tests("StoreTests", ["TestSupport", "StoreTestSupport", "HSMStore", "HSMCore", "HSMSystem"]),
        tests("RemotesTests", ["TestSupport", "HSMRemotes", "HSMCore", "HSMSystem"]),
        tests("RemotesHTTPTests", ["FaultServers", "HSMRemotes", "HSMCore", "HSMSystem", httpTypes]),
        tests("RemotesS3Tests", ["FaultServers", "HSMRemotes", "HSMCore", "HSMSystem", httpTypes]),
        tests(
            "ImportTests",
            ["TestSupport", "StoreTestSupport", "HSMImport", "HSMRemotes", "HSMStore", "HSMCore", "HSMSystem"]),
        tests("ControlTests", ["TestSupport", "HSMControl", "HSMCore", "HSMSystem"]),
        tests(
            "DaemonTests",
            [
                "TestSupport", "StoreTestSupport", "HSMDaemon", "HSMControl", "HSMFuse", "HSMStore", "HSMRemotes",
                "HSMCore", "HSMSystem", logging, "HSMImport",
            ]),
        tests("DiagnosticsTests", ["TestSupport", "HSMDiagnostics", "HSMSystem"]),
        tests("FilesTests", ["TestSupport", "StoreTestSupport", "HSMFiles", "HSMStore", "HSMCore", "HSMSystem"]),
        tests(
            "FuseTests",
            ["CFuse", "CLinux", "HSMFuse", "HSMFuseDoor", "HSMCore", "HSMStore", "HSMSystem", "TestSupport", logging]),
        tests(
            "FanotifyTests",
            [
                "TestSupport", "StoreTestSupport", "HSMFanotify", "HSMStore", "HSMCore", "HSMSystem", "CLinux", logging,
            ]),
        tests("MountTests", ["TestSupport", "FaultServers", "HSMSystem", "CLinux"]),
        fuzzing,
    ]
)

if let threadTests {
    package.targets.removeAll { $0.type == .test && !threadTests.contains($0.name) }
    package.targets.append(
        .target(name: "ThreadSanitizer", path: "Tests/ThreadSanitizer", cSettings: [.define("_GNU_SOURCE")]))
}
