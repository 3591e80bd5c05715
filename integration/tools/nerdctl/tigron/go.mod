// The packages of nerdctl's own tests need a module that no registry has
// (nerdctl's go.mod replaces it by a folder). What is here stands in its place, as
// far as the nerdctl program needs it to compile.
module github.com/containerd/nerdctl/mod/tigron

go 1.24
